"""Programs to copy from: what users of a result write."""
