"""Builds over the host: the steps of a Dockerfile, applied to overlays of this machine's own directories."""
