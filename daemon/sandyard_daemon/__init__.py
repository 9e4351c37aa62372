"""The toolbox server inside each sandbox. Standard library and small sans-I/O packages only."""
