"""The control plane and a runner together, in one process and without a network."""
