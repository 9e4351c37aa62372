"""Sandyard: a sandbox platform for one laptop, compatible with the Daytona API."""

__version__ = "0.1.0"
