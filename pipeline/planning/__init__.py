"""The first step: what the sources hold becomes committed increments of chunks."""
