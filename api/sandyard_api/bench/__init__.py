"""What makes Sandyard an emulator for tests: time under control, isolated organizations, a reset."""
