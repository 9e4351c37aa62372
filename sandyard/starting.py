"""Starting with less to do: Python's garbage collector is held back, and what nobody uses is not imported or read.

Nearly everything that is made at a start stays. The collector would look through the whole of it several times over,
which is a sixth of the time until we are ready.
"""

import gc
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

LATER = ("pdb", "yaml")
"""What Litestar imports, and nothing in a process of ours uses."""

_is_ours = False
"""Whether the process is Sandyard's own, see `importing`."""


@contextmanager
def uncollected() -> Iterator[None]:
    """No collection as long as the block lasts; in a process of ours what was made until its end is never looked at."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if _is_ours:
            gc.freeze()
        if was_on:
            gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """For importing what this process is for, which is thereby known for a process of ours."""
    global _is_ours
    _is_ours = True
    with uncollected():
        _import_structlog()
        for name in LATER:
            _import_when_used(name)
        with _trusting_later():
            yield


def _import_structlog() -> None:
    """Without rich: structlog takes it for traces in colour, which ours have not, and it is a twentieth of a start."""
    if "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # how Python notes what cannot be imported
    try:
        import structlog  # noqa: F401
    finally:
        del sys.modules["rich"]


def _import_when_used(name: str) -> None:
    """`LazyLoader` is for this, but imports it at the second `import` where Python is older than 3.12.3.

    Whoever uses the module has it. A package whose submodule is imported before anything else of it has that one twice.
    """
    if name in sys.modules or (spec := find_spec(name)) is None:
        return

    def attribute(of: str) -> Any:
        if sys.modules.get(name) is stand_in:
            sys.modules.pop(name, None)
        return getattr(import_module(name), of)

    stand_in = ModuleType(name)
    stand_in.__spec__ = spec
    sys.modules[name] = stand_in
    stand_in.__getattr__ = attribute  # type: ignore[method-assign]  # of a module, PEP 562


class _TrustingLater(ssl.SSLContext):
    """Reads the machine's certificates when it is first used, and is an ordinary context from then on."""

    def wrap_bio(self, *arguments: Any, **options: Any) -> ssl.SSLObject:
        return self._trusting().wrap_bio(*arguments, **options)

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:
        return self._trusting().wrap_socket(*arguments, **options)

    def _trusting(self) -> ssl.SSLContext:
        self.set_default_verify_paths()
        self.__class__ = ssl.SSLContext  # type: ignore[assignment]
        return self


@contextmanager
def _trusting_later() -> Iterator[None]:
    """What imports make for TLS reads no certificates yet: aiohttp has two of them, a twentieth of a start, and here it
    hardly ever speaks TLS."""
    plain = ssl.SSLContext
    if plain.__module__ != "ssl":  # truststore's, for one, which asks the system instead
        yield
        return
    read = plain.set_default_verify_paths
    made: list[ssl.SSLContext] = []

    def later(self: ssl.SSLContext) -> None:
        made.append(self) if type(self) is plain else read(self)

    plain.set_default_verify_paths = later  # type: ignore[method-assign]
    try:
        yield
    finally:
        del plain.set_default_verify_paths
        for context in made:
            context.__class__ = _TrustingLater
