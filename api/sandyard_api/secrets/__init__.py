"""Secrets that sandboxes use without ever seeing them."""
