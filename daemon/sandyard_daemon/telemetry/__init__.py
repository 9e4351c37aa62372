"""Metrics and the entrypoint's log, sent to a collector where the sandbox was given one."""
