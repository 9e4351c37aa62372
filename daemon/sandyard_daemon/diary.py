"""The daemon's own log: lines on standard error, since `logging` is not worth its memory in every sandbox."""

import sys


def report(event: str, **fields: object) -> None:
    """One line: an event word and fields. Never secrets, never bodies."""
    text = " ".join(f"{key}={value!r}" for key, value in fields.items())
    sys.stderr.write(f"sandyard-daemon {event} {text}\n")
    sys.stderr.flush()
