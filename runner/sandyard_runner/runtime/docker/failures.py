"""The one table from what docker-py raises to what the runner knows."""

from collections.abc import Mapping

import requests
import urllib3
from docker import errors

from sandyard_runner.errors import RuntimeFailure


class Missing(RuntimeFailure):
    """The engine does not have what was asked for."""

    code = "ENGINE_NOT_FOUND"


class Conflict(RuntimeFailure):
    """The name is taken, or the thing is in a state that does not allow it."""

    code = "ENGINE_CONFLICT"


class EngineUnreachable(RuntimeFailure):
    """No engine answers. Safe to repeat."""

    code = "ENGINE_UNREACHABLE"


TABLE: Mapping[type[Exception], type[RuntimeFailure]] = {
    errors.ImageNotFound: Missing,
    errors.NotFound: Missing,
    errors.APIError: RuntimeFailure,
    errors.BuildError: RuntimeFailure,
    errors.ContainerError: RuntimeFailure,
    errors.ContextAlreadyExists: RuntimeFailure,
    errors.ContextException: RuntimeFailure,
    errors.ContextNotFound: EngineUnreachable,
    errors.DeprecatedMethod: RuntimeFailure,
    errors.ImageLoadError: RuntimeFailure,
    errors.InvalidArgument: RuntimeFailure,
    errors.InvalidConfigFile: RuntimeFailure,
    errors.InvalidRepository: RuntimeFailure,
    errors.InvalidVersion: EngineUnreachable,
    errors.MissingContextParameter: RuntimeFailure,
    errors.NullResource: RuntimeFailure,
    errors.StreamParseError: RuntimeFailure,
    errors.TLSParameterError: EngineUnreachable,
    errors.DockerException: EngineUnreachable,
    requests.exceptions.RequestException: EngineUnreachable,
    urllib3.exceptions.HTTPError: EngineUnreachable,
}
"""Complete by test over `docker.errors`; the nearest class of an exception's line of descent counts."""

BY_STATUS: Mapping[int | None, type[RuntimeFailure]] = {404: Missing, 409: Conflict}
"""For the engine's own answers the status says more than the class."""

WRAPPED = (errors.DockerException, requests.exceptions.RequestException, urllib3.exceptions.HTTPError)
"""What callers of docker-py catch."""


def translate(error: Exception, doing: str) -> RuntimeFailure:
    """Our form of docker-py's exception; `doing` says what was tried, such as `create the container`."""
    if isinstance(error, errors.APIError) and error.status_code in BY_STATUS:
        kind = BY_STATUS[error.status_code]
    else:
        kind = next(TABLE[ancestor] for ancestor in type(error).__mro__ if ancestor in TABLE)
    return kind(f"cannot {doing}: {_text(error)}", recoverable=kind is EngineUnreachable)


def _text(error: Exception) -> str:
    if isinstance(error, errors.APIError) and error.explanation:
        return str(error.explanation).strip()
    return str(error).strip() or type(error).__name__
