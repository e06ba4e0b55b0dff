"""Masks and images as arrays: the pure core. Arrays in, arrays out; no files, no network, no models."""
