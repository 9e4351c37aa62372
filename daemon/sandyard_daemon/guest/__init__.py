"""Programs for the sandbox's own Python (3.6 and later): never imported by the daemon, carried as text.

They run inside user processes: each leaves as few traces there as can be, and nothing of it may change what a user's
program does.
"""

from pathlib import Path


def source(name: str) -> str:
    """The text of a program. Raises `OSError`."""
    return (Path(__file__).parent / f"{name}.py").read_text("utf-8")
