"""Headstart: run the frozen base once, iterate on heads in seconds."""
