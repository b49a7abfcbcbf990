"""headstart.extract."""
