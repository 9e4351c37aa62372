"""Files of the sandbox: everything below `/files`. Loaded by the first request for it."""
