"""The toolbox server inside each sandbox. Standard library and small sans-I/O packages only."""

VERSION = "0.1.0"
