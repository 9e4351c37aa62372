"""Holding Python's garbage collector back while we start: nearly everything that is made then stays.

It would look through the whole of it several times over, which is a sixth of the time until we are ready.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection as long as the block lasts."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """For importing what this process is for: without a collection, and what is there afterwards is never looked at
    again."""
    with uncollected():
        yield
        gc.freeze()
