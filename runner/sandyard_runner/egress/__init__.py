"""The way out of sandboxes: what each may reach, name lookups for it, and the proxy that puts secrets in."""
