"""Bytes to arrays: images, mask images, activation maps, and what sources say of a mask's shape."""
