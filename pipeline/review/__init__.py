"""What people say of masks."""
