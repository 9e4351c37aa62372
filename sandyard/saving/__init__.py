"""A Sandyard that is not running as one file, and back: database, command logs, file systems of local sandboxes."""
