"""How fast: stages on this machine, a corpus from a sample, the best way to divide a machine."""
