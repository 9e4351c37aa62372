"""Tokens that let an SSH client into a sandbox for a while."""
