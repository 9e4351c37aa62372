"""Sandyard for test runs: a server that is started once, organizations that keep tests apart, reports of failures."""

READY = "server.json"
"""Name of the file by which a server of a test run says where it is."""
DATA = "data"
"""The data directory within the folder of such a server."""
