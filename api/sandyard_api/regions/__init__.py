"""The one region: this machine."""
