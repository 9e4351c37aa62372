"""The code interpreter: contexts that keep a Python process each, and the WebSocket that runs code in one."""
