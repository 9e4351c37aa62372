"""The local runtime: sandboxes as namespaces over the host's own files, or as plain processes. Linux, no engine."""
