"""The embedded model `lite`: its network, its inference, its training."""
