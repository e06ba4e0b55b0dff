"""Checking an output from its files alone."""
