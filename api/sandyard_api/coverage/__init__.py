"""What of the protocol this version covers: one table, the matcher over it, and the page made from it."""

from sandyard_api.coverage.page import render

__all__ = ["render"]
