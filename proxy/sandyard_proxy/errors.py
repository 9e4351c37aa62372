"""Everything the proxy refuses, as what the client gets to see.

```
ProxyError
├── BadRequest            400  malformed
│   └── NotStarted        400  the sandbox exists and does not run
├── Unauthenticated       401
├── ForeignHost           403  a Host that is not ours
├── NotFound              404  sandbox, session, command
├── DoorUnreachable       502  the sandbox's daemon does not answer
│   ├── NotDelivered      502  the daemon did not take the request; safe to repeat
│   ├── DoorReplaced      502  something else stands where the daemon's socket was
│   └── BrokenExchange    502  the connection ended within an exchange
├── ControlPlaneAway      503  the control plane does not answer
└── LogLost                    a followed log cannot be followed any more; closes the stream
```
"""

from datetime import UTC, datetime
from http import HTTPStatus

SOURCE = "DAYTONA_PROXY"


class ProxyError(Exception):
    """Base of the tree. The message is fit for the user's eyes."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "INTERNAL_SERVER_ERROR"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(ProxyError):
    """The request cannot be understood."""

    status = HTTPStatus.BAD_REQUEST
    code = "BAD_REQUEST"


class NotStarted(BadRequest):
    """The sandbox exists and does not run."""

    def __init__(self) -> None:
        super().__init__("bad request: no IP address found. Is the Sandbox started?")


class Paused(BadRequest):
    """The sandbox exists and is held still; nothing in it can answer."""

    def __init__(self) -> None:
        super().__init__("bad request: the Sandbox is paused. Start it to resume it")


class Unauthenticated(ProxyError):
    """No credential, or none that holds."""

    status = HTTPStatus.UNAUTHORIZED
    code = "UNAUTHORIZED"


class ForeignHost(ProxyError):
    """The Host header is not one of our names."""

    status = HTTPStatus.FORBIDDEN
    code = "FORBIDDEN"

    def __init__(self, host: str) -> None:
        super().__init__(
            f"forbidden: {host!r} is not a name of this server; SANDYARD_ALLOWED_HOSTS lists names that are"
        )


class NotFound(ProxyError):
    """There is no such thing, or not for this caller."""

    status = HTTPStatus.NOT_FOUND
    code = "NOT_FOUND"

    @classmethod
    def sandbox(cls, key: str) -> "NotFound":
        """The sandbox is unknown or somebody else's."""
        return cls(f"not found: sandbox {key} does not exist")


class DoorUnreachable(ProxyError):
    """The sandbox's daemon does not answer."""

    status = HTTPStatus.BAD_GATEWAY
    code = "BAD_GATEWAY"


class NotDelivered(DoorUnreachable):
    """The daemon did not take the request: its door is not there, or asks for another secret. Safe to repeat."""


class DoorReplaced(DoorUnreachable):
    """Something else stands where the daemon's socket was; a program in the sandbox did that."""


class BrokenExchange(DoorUnreachable):
    """The connection to the daemon ended within an exchange."""


class ControlPlaneAway(ProxyError):
    """The control plane does not answer. Safe to repeat."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "SERVICE_UNAVAILABLE"


class LogLost(ProxyError):
    """A followed log cannot be followed any more; the message says why."""


def envelope(error: ProxyError, method: str, path: str) -> dict[str, object]:
    """The error body that all clients understand. *Source:* sdk-wire.md 8.1."""
    return {
        "statusCode": int(error.status),
        "message": error.message,
        "code": error.code,
        "source": SOURCE,
        "error": error.status.phrase,
        "path": path,
        "method": method,
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
    }
