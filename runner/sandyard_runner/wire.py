"""Messages that a runner serves to proxies and the control plane.

Paths, relative to the runner's base URL; every request carries `Authorization: Bearer <internal token>`:

| method and path | answer |
|---|---|
| GET /relay/{sandbox_id}/{session_id}/{command_id} | newline-delimited JSON `RelayTick`s, see below |
| GET /forward/{sandbox_id}, WebSocket | a raw byte tunnel to the sandbox's door, for proxies that do not see it |
| POST /environment/{sandbox_id}, an object of variables | 204: its daemon gives them to all processes to come; 502 |
| GET /usage/{sandbox_id} | `{"samples": [...]}`: each the fields of a `UsageSample` as an array, oldest first |
| GET /health | 200 |

The open relay request is the lease that keeps the command's log on the bus. It answers one tick at once, two a second,
and one as soon as the command is over, which has `end` and is the last.

A tunnel carries bytes in binary messages cut anywhere, both ways; what is spoken inside is the daemon's HTTP, with
the door's secret. `client.RunnerClient.connect_door` gives it as a plain socket. Closed with 1000 when the daemon
closed, 1011 when the door could not be opened.

Log bytes go over the bus on channel `log_channel(sandbox_id, command_id)` as `sandyard_daemon.wire` log frames.
"""

from enum import StrEnum

import msgspec


def log_channel(sandbox_id: str, command_id: str) -> str:
    """The bus channel that carries one command's live log frames."""
    return f"logs:{sandbox_id}:{command_id}"


class RelayTick(msgspec.Struct, frozen=True):
    """What the runner knows of a log. Offsets count payload bytes of both streams in arrival order."""

    offset: int
    """How far the log has come."""
    end: int | None = None
    """The offset of the end record once the command is over; the stream ends when it was delivered."""
    exit_code: int | None = None
    lost: str | None = None
    """Why the log cannot be followed any more (sandbox deleted, daemon gone); the last tick."""


class UsageSample(msgspec.Struct, frozen=True):
    """What a sandbox used at a moment. Sizes in bytes; limits are what it could use at the most."""

    at: float
    """Unix seconds."""
    cpu_percent: float
    """Of the limit."""
    cpu_limit: float
    """Processors."""
    memory: float
    memory_limit: float
    memory_cache: float
    disk: float
    disk_limit: float


class Enforcement(StrEnum):
    """How far a runtime holds a promise."""

    ENFORCED = "enforced"
    WATCHED = "watched"  # measured and told, not prevented
    IGNORED = "ignored"
    REFUSED = "refused"  # asking for it is an error


class Capability(msgspec.Struct, frozen=True):
    """One row of the table `GET /_sandyard/capabilities`, `sandyard doctor` and the documents show."""

    name: str
    """`cpu`, `memory`, `processes`, `disk`, `images`, `network_isolation`, `network_block_all`, `filesystem_isolation`,
    `user`, `pause`, `resize`, `fork`, `snapshot` ..."""
    enforcement: Enforcement
    detail: str
