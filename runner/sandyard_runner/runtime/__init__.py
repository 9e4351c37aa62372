"""Whatever holds sandboxes: `memory` for unit tests, `local` namespaces, `docker` containers."""
