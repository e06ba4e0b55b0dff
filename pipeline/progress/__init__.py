"""What a run reports while it works, and where its time went."""
