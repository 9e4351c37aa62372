"""The errors of the daemon and the body each becomes.

DaemonError
 ├─ BadRequest 400           ├─ Conflict 409            ├─ Unavailable 502
 │   ├─ InvalidBody          ├─ Gone 410                ├─ NotBuilt 501
 │   ├─ NoPlaceToLook        │   ├─ SessionEnded        └─ Internal 500
 │   └─ ServerNotInitialized │   └─ CommandCompleted
 ├─ Unauthorized 401         ├─ BodyTooLarge 413
 ├─ FileAccessDenied 403     ├─ RangeNotSatisfiable 416
 ├─ NotFound 404             └─ TooMany 422
 │   └─ FileMissing
 ├─ WrongMethod 405
 ├─ ExecutionTimeout 408
 └─ RequestTimeout 408

*Source:* contract/toolbox-daemon.md 2.3. Codes stay inside the enumeration of the toolbox description.
"""

import time
from typing import Any, ClassVar


class DaemonError(Exception):
    """Anything a client may be told. The message is for people; `code` is stable."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_SERVER_ERROR"

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class BadRequest(DaemonError):
    """A value that makes no sense here."""

    status, code = 400, "BAD_REQUEST"


class InvalidBody(BadRequest):
    """A body that is not the JSON this operation takes."""

    code = "INVALID_REQUEST_BODY"


class ServerNotInitialized(BadRequest):
    """No language server runs for this language and project."""

    code = "LSP_SERVER_NOT_INITIALIZED"


class NoPlaceToLook(BadRequest):
    """What was to be searched is not there."""

    code = "FILE_NOT_FOUND"


class Unauthorized(DaemonError):
    """The door's secret is missing or wrong."""

    status, code = 401, "UNAUTHORIZED"


class NotFound(DaemonError):
    """No such route, session, command or log."""

    status, code = 404, "NOT_FOUND"


class FileAccessDenied(DaemonError):
    """The daemon's user may not."""

    status, code = 403, "FILE_ACCESS_DENIED"


class FileMissing(NotFound):
    """No such file or directory."""

    code = "FILE_NOT_FOUND"


class WrongMethod(DaemonError):
    """The path exists, not with this method."""

    status, code = 405, "BAD_REQUEST"


class ExecutionTimeout(DaemonError):
    """A one-shot command ran longer than its caller allowed; it was killed."""

    status, code = 408, "PROCESS_EXECUTION_TIMEOUT"


class RequestTimeout(DaemonError):
    """A program of the sandbox that we asked did not answer in time."""

    status, code = 408, "REQUEST_TIMEOUT"


class Conflict(DaemonError):
    """It exists already."""

    status, code = 409, "CONFLICT"


class Gone(DaemonError):
    """It was there and is over."""

    status, code = 410, "GONE"


class SessionEnded(Gone):
    """The session's shell is dead."""

    code = "SESSION_ENDED"


class CommandCompleted(Gone):
    """The command is over and reads nothing any more."""

    code = "COMMAND_ALREADY_COMPLETED"


class BodyTooLarge(DaemonError):
    """More bytes than this operation takes."""

    status, code = 413, "BAD_REQUEST"


class TooMany(DaemonError):
    """There are as many of these as one sandbox may have."""

    status, code = 422, "UNPROCESSABLE_ENTITY"


class RangeNotSatisfiable(DaemonError):
    """A range that begins behind the end of the file."""

    status, code = 416, "BAD_REQUEST"


class NotBuilt(DaemonError):
    """An operation of the toolbox API that this daemon does not have."""

    status, code = 501, "INTERNAL_SERVER_ERROR"


class Unavailable(DaemonError):
    """Nothing answers on a port of the sandbox."""

    status, code = 502, "INTERNAL_SERVER_ERROR"


class Internal(DaemonError):
    """The sandbox cannot do it: no shell, no space, no process."""


def envelope(error: DaemonError, *, method: str, path: str) -> dict[str, Any]:
    """The error body of August 2026; `path` comes without its query."""
    return {
        "statusCode": error.status,
        "message": error.message,
        "code": error.code,
        "timestamp": timestamp(),
        "path": path,
        "method": method,
        "source": "DAYTONA_DAEMON",
        **({"details": error.details} if error.details else {}),
    }


def timestamp(seconds: float | None = None) -> str:
    """RFC 3339 in UTC with milliseconds, of now or of `seconds` since the epoch."""
    moment = time.time() if seconds is None else seconds
    whole = int(moment)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((moment - whole) * 1000):03d}Z"
