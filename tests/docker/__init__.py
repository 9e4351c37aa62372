"""The docker runtime: its pure parts, and its edges on a real engine."""
