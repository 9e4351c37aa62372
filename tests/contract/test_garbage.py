"""Garbage on every part of the public port: an answer or an end in time, no 500, bounded memory, and on it goes."""

from collections.abc import Callable, Mapping

import pytest

from tests.contract.garbage import Place, Told, garbage, is_envelope, say
from tests.contract.running import Instance
from tests.contract.toolbox import Toolbox

pytestmark = pytest.mark.sdk

SLACK_MIB = 60.0
HANDSHAKE = frozenset({400, 426})
"""A refused WebSocket handshake has no body."""
PLACES: Mapping[str, Callable[[Toolbox], tuple[str, str, str]]] = {
    "api": lambda box: ("", "POST", "/api/sandbox"),
    "an interval": lambda box: ("", "POST", f"/api/sandbox/{box.id}/autostop/15"),
    "api keys": lambda box: ("", "POST", "/api/api-keys"),
    "faults": lambda box: ("", "POST", "/_sandyard/faults"),
    "quirks": lambda box: ("", "POST", "/_sandyard/quirks"),
    "journal": lambda box: ("", "POST", "/_sandyard/journal"),
    "clock": lambda box: ("", "POST", "/_sandyard/clock"),
    "organizations": lambda box: ("", "POST", "/_sandyard/organizations"),
    "object storage": lambda box: ("", "PUT", "/sandyard-contexts/organization/hash/context.tar"),
    "toolbox": lambda box: ("", "POST", f"/toolbox/{box.id}/files/folder"),
    "preview of the toolbox": lambda box: (f"2280-{box.id}.localhost", "POST", "/files/folder"),
    "preview of a closed port": lambda box: (f"3999-{box.id}.localhost", "POST", "/"),
    "preview of nothing": lambda box: ("3000-nothing.localhost", "GET", "/"),
}
"""Host where it is another than the printed one, method and path."""


@pytest.mark.parametrize("name", PLACES)
def test_garbage_is_refused(sandyard: Instance, shared_toolbox: Toolbox, name: str) -> None:
    host, method, path = PLACES[name](shared_toolbox)
    address = (sandyard.host, sandyard.port)
    place = Place(address, f"{host or sandyard.host}:{sandyard.port}", path, sandyard.api_key, method)
    memory, log = sandyard.resident_mib(), len(sandyard.log)
    told = {what: say(place, said) for what, said in garbage(place)}
    assert {what: answer for what, answer in told.items() if not is_clear(what, answer, name)} == {}
    assert "Traceback" not in sandyard.log[log:], sandyard.log[log:][-3000:]
    assert sandyard.resident_mib() - memory < SLACK_MIB
    assert shared_toolbox.call("GET", "/version").status == 200


def is_clear(what: str, told: Told, place: str) -> bool:
    """An answer that a client can read, or an end where the request did not."""
    if told.status is None:
        return what in ("chunks that break off", "a body shorter than said")
    if told.status >= 500 and not (told.status == 502 and place == "preview of a closed port"):
        return False
    if told.status < 400 or is_envelope(told):
        return True
    if what.startswith("upgrade") and told.status in HANDSHAKE and not told.body:
        return True
    if what == "method HEAD":
        return not told.body
    return place == "object storage" and told.body.startswith(b"<?xml")
