"""Keys of our own in ASGI scopes."""

HANG_UP = "sandyard.hang_up"
"""A function that closes the client's connection once what was sent is out. ASGI has no word for that."""
