"""Starting with less to do: Python's garbage collector is held back, and what nobody uses is not imported.

Nearly everything that is made at a start stays. The collector would look through the whole of it several times over,
which is a sixth of the time until we are ready.
"""

import gc
import sys
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
        _import_structlog()
        yield
        gc.freeze()


def _import_structlog() -> None:
    """Without rich: structlog takes it for traces in colour, which ours have not, and it is a twentieth of a start."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # how Python notes what cannot be imported
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]
