"""The control plane: REST API, events, lifecycle rules, timers and the database."""
