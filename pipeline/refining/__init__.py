"""The second step: pending chunks become parts, on Ray Data."""
