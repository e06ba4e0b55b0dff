"""Training of `lite`: data, damage, loss and loop. Nothing at inference imports this folder."""
