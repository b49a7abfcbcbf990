"""headstart.heads."""
