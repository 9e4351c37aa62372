"""Terminals that several clients share: `/process/pty`. Loaded by their first request."""
