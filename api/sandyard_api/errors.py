"""The errors that clients see, and the one table from class to HTTP status.

```
ApiError
├── BadRequest              a value that cannot be, or a state that does not allow it
├── Unauthorized            no key, or one that is not valid
├── Forbidden               a valid key that may not do this
│   └── ForeignHost         a Host or Origin that is not ours
├── NotFound
├── MethodNotAllowed
├── Conflict                a name that is taken, or a change in progress
│   └── MovedMeanwhile      somebody else changed the row first; safe to repeat
├── Gone
├── PayloadTooLarge
├── TooManyRequests         a rate limit
├── Unprocessable           the runtime that holds this sandbox cannot do it
├── NotImplementedHere      part of the protocol, not of this version
└── Unavailable             a part of ours does not answer
```
"""

from collections.abc import Mapping
from http import HTTPStatus


class ApiError(Exception):
    """An error with a message for the client. `code` is stable, the message may change."""

    code = "INTERNAL_SERVER_ERROR"


class BadRequest(ApiError):
    """A value that cannot be, or a state that does not allow the request."""

    code = "BAD_REQUEST"


class Unauthorized(ApiError):
    """No key, or one that is not valid."""

    code = "UNAUTHORIZED"

    def __init__(self, message: str = "Invalid credentials") -> None:
        super().__init__(message)


class Forbidden(ApiError):
    """A valid key that may not do this."""

    code = "FORBIDDEN"


class ForeignHost(Forbidden):
    """The Host or Origin header names somebody else: DNS rebinding, or a page of another site."""


class NotFound(ApiError):
    """No such thing, or not for this key."""

    code = "NOT_FOUND"


class MethodNotAllowed(ApiError):
    """The path exists, this method on it does not."""

    code = "METHOD_NOT_ALLOWED"


class Conflict(ApiError):
    """A name that is taken, or a change in progress."""

    code = "CONFLICT"


class MovedMeanwhile(Conflict):
    """Somebody else changed the row first. Safe to repeat."""

    def __init__(self) -> None:
        super().__init__("Sandbox was modified by another operation")


class Gone(ApiError):
    """It was there and will not come back."""

    code = "GONE"


class PayloadTooLarge(ApiError):
    """A body longer than this route takes."""

    code = "PAYLOAD_TOO_LARGE"


class TooManyRequests(ApiError):
    """A rate limit. *Source:* control-plane.md 1.3."""

    code = "TOO_MANY_REQUESTS"

    def __init__(self) -> None:
        super().__init__("ThrottlerException: Too Many Requests")


class Unprocessable(ApiError):
    """The runtime that holds this sandbox cannot do it."""

    code = "UNPROCESSABLE_ENTITY"


class NotImplementedHere(ApiError):
    """Part of the protocol, not of this version of Sandyard."""

    code = "NOT_IMPLEMENTED"


class Unavailable(ApiError):
    """A part of ours does not answer."""

    code = "SERVICE_UNAVAILABLE"


STATUS: Mapping[type[ApiError], HTTPStatus] = {
    ApiError: HTTPStatus.INTERNAL_SERVER_ERROR,
    BadRequest: HTTPStatus.BAD_REQUEST,
    Unauthorized: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    ForeignHost: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    MethodNotAllowed: HTTPStatus.METHOD_NOT_ALLOWED,
    Conflict: HTTPStatus.CONFLICT,
    MovedMeanwhile: HTTPStatus.CONFLICT,
    Gone: HTTPStatus.GONE,
    PayloadTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    Unprocessable: HTTPStatus.UNPROCESSABLE_ENTITY,
    NotImplementedHere: HTTPStatus.NOT_IMPLEMENTED,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""From class to HTTP status; complete by test."""
