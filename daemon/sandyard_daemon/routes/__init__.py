"""What the daemon serves: one class per area, its handlers named by operation id or by path."""
