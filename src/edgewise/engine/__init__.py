"""L6: the loop."""
