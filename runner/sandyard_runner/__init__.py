"""The runner: turns desired state into sandboxes on one machine, through a `Runtime`."""
