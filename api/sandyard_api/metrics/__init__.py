"""What sandboxes used over time, as the SDKs ask for it."""
