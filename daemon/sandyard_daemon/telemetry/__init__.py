"""Metrics, the entrypoint's log and a span for each request, sent to a collector where the sandbox was given one."""
