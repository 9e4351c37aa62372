"""The newest Python SDK's client, for every test that uses it in its own process."""

import contextlib
from collections.abc import Iterator

from daytona import Daytona, DaytonaConfig, ListSandboxesQuery

from tests.contract.running import Instance


@contextlib.contextmanager
def client(sandyard: Instance, api_key: str) -> Iterator[Daytona]:
    """A client whose event socket ends with it.

    Left alone, its thread reconnects for ever once the server is gone, and draws from the process's own random numbers.
    """
    opened = Daytona(DaytonaConfig(api_key=api_key, api_url=sandyard.api_url))
    try:
        yield opened
    finally:
        if opened._event_dispatcher is not None:
            with contextlib.suppress(AttributeError):  # the library's own race, while it is still connecting
                opened._event_dispatcher.disconnect()


def told_reason(daytona: Daytona, mark: str) -> str:
    """Why the one sandbox with this label `mark` failed, as the API tells it; the sandbox is deleted.

    The library takes only the state from an event, so the text of what it raises may lack the reason.
    """
    (failed,) = daytona.list(ListSandboxesQuery(labels={"mark": mark}))
    reason = failed.error_reason or ""
    failed.delete()
    return reason
