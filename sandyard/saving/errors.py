"""Why something cannot be saved, or a file cannot be loaded."""


class BadArchive(RuntimeError):
    """The file cannot be loaded, or not here; the message says why."""


class UnsafeMember(BadArchive):
    """A member of the archive would be written outside its sandbox."""


class Unreadable(RuntimeError):
    """Something cannot be saved; the message says what and why."""
