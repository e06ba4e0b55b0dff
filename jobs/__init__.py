"""The command line. Thin: parses, calls `pipeline`, sets the exit code."""
