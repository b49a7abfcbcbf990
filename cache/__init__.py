"""headstart.cache."""
