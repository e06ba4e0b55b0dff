"""The Ray cluster: connecting to it, and what the stages reserve of it."""
