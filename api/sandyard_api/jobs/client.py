"""How runners and proxies speak to the control plane: the contract, its errors and its HTTP form.

```
ControlPlaneError
├── ControlPlaneUnreachable   no answer, or not in time; every call may be repeated
├── ControlPlaneRefused       an answer that the wire does not know
├── LeaseVoid                 somebody else has the job, or it is no longer wanted
├── UnknownRoute              no sandbox answers to that id, name or token
├── UnknownContext            no build context of that hash
├── SshAccessExpired          the token of SSH logins was right once
└── BadKey                    no such API key
```
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec
from yarl import URL

from sandyard_api.jobs.wire import (
    ClaimRequest,
    CommandRecord,
    Heartbeat,
    ImageJob,
    ImageProgress,
    ImageResult,
    Job,
    JobProgress,
    JobResult,
    KeyGrant,
    Observation,
    Route,
    SessionRecord,
    Wanted,
)

Answer = TypeVar("Answer")

CALL_TIMEOUT_SECONDS = 10.0
MAX_REASON_BYTES = 500
COPY_BYTES = 1 << 20


class ControlPlaneError(Exception):
    """The control plane did not do what it was asked."""


class ControlPlaneUnreachable(ControlPlaneError):
    """No answer, or none in time. Every call may be repeated."""


class ControlPlaneRefused(ControlPlaneError):
    """An answer outside the contract, such as a wrong internal token. Repeating does not help."""


class LeaseVoid(ControlPlaneError):
    """The job belongs to somebody else by now or is not wanted any more: drop it."""


class UnknownRoute(ControlPlaneError):
    """No sandbox has that id, name or preview token."""


class UnknownContext(ControlPlaneError):
    """The control plane has no build context of that hash, or not any more."""


class SshAccessExpired(ControlPlaneError):
    """The token let SSH clients in until it expired."""


class BadKey(ControlPlaneError):
    """The API key is unknown, revoked or expired."""


class ControlPlane(Protocol):
    """What a runner and a proxy may ask. Every method raises `ControlPlaneUnreachable` and `ControlPlaneRefused`."""

    async def claim(self, request: ClaimRequest) -> Sequence[Job | ImageJob]:
        """Jobs under a lease of their own; empty when none came within `request.wait_seconds`."""

    async def progress(self, job_id: str, progress: JobProgress) -> None:
        """Extend the lease. Raises `LeaseVoid`."""

    async def finish(self, job_id: str, result: JobResult) -> None:
        """End the job. Raises `LeaseVoid`."""

    async def observe(self, observations: Sequence[Observation]) -> None:
        """Tell what was seen without having been asked. May be repeated."""

    async def wanted(self, runner_id: str) -> Sequence[Wanted]:
        """Everything that should exist on that runner."""

    async def heartbeat(self, runner_id: str, heartbeat: Heartbeat) -> None:
        """Say that the runner is alive and where; also registers it."""

    async def record(self, sessions: Sequence[SessionRecord], commands: Sequence[CommandRecord]) -> None:
        """Insert or complete session and command records. May be repeated."""

    async def append_build_log(self, sandbox_id: str, text: str) -> None:
        """Add text to what the user sees of the pull or build; lines end in a newline."""

    async def route(self, key: str) -> Route:
        """How to reach the sandbox with that id, name or preview token. Raises `UnknownRoute`."""

    async def ssh_access(self, token: str) -> str:
        """The id of the sandbox that an SSH login with this token is for. Raises `UnknownRoute`, `SshAccessExpired`."""

    async def check_key(self, key: str) -> KeyGrant:
        """What an API key stands for. Raises `BadKey`."""

    async def touch(self, activity: Mapping[str, datetime]) -> None:
        """Tell the last use of sandboxes, `{sandbox_id: at}`; never moves one back."""


class RunnerControlPlane(ControlPlane, Protocol):
    """What a runner may ask besides, about images."""

    async def progress_image(self, job_id: str, progress: ImageProgress) -> None:
        """Extend the lease of an image job. Raises `LeaseVoid`."""

    async def finish_image(self, job_id: str, result: ImageResult) -> None:
        """End an image job. Raises `LeaseVoid`."""

    async def wanted_images(self) -> Sequence[str]:
        """Every built image that something may still be made from."""

    async def wanted_volumes(self) -> Sequence[str]:
        """The ids of every volume whose content is still wanted."""

    async def fetch_context(self, organization_id: str, context_hash: str, target: Path) -> None:
        """Write the tar of a build context to `target`. Raises `UnknownContext`."""


class _Jobs(msgspec.Struct):
    jobs: list[Job]
    image_jobs: list[ImageJob] = []


class _Images(msgspec.Struct):
    images: list[str]


class _Volumes(msgspec.Struct):
    volumes: list[str]


class _SshAccess(msgspec.Struct):
    sandbox_id: str


class _WantedList(msgspec.Struct):
    sandboxes: list[Wanted]


class HttpControlPlane:
    """`ControlPlane` over HTTP. `base_url` is `http://host:port` or `unix:/path/to/socket`; close it after use."""

    def __init__(self, base_url: str, token: str, *, timeout_seconds: float = CALL_TIMEOUT_SECONDS) -> None:
        unix = base_url.startswith("unix:")
        self._socket_path = base_url.removeprefix("unix:") if unix else None
        self._origin = "http://control-plane" if unix else base_url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"}
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End idle connections. The client can be used again afterwards."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def claim(self, request: ClaimRequest) -> Sequence[Job | ImageJob]:
        body = await self._call("POST", "/internal/jobs/claim", request, extra_seconds=request.wait_seconds)
        answer = _decode(body, _Jobs)
        return [*answer.jobs, *answer.image_jobs]

    async def progress(self, job_id: str, progress: JobProgress) -> None:
        await self._call("POST", f"/internal/jobs/{_segment(job_id)}/progress", progress, errors={409: LeaseVoid})

    async def finish(self, job_id: str, result: JobResult) -> None:
        await self._call("POST", f"/internal/jobs/{_segment(job_id)}/finish", result, errors={409: LeaseVoid})

    async def progress_image(self, job_id: str, progress: ImageProgress) -> None:
        await self._call("POST", f"/internal/image-jobs/{_segment(job_id)}/progress", progress, errors={409: LeaseVoid})

    async def finish_image(self, job_id: str, result: ImageResult) -> None:
        await self._call("POST", f"/internal/image-jobs/{_segment(job_id)}/finish", result, errors={409: LeaseVoid})

    async def wanted_images(self) -> Sequence[str]:
        return _decode(await self._call("GET", "/internal/images"), _Images).images

    async def wanted_volumes(self) -> Sequence[str]:
        return _decode(await self._call("GET", "/internal/volumes"), _Volumes).volumes

    async def fetch_context(self, organization_id: str, context_hash: str, target: Path) -> None:
        path = f"/internal/contexts/{_segment(organization_id)}/{_segment(context_hash)}"
        deadline = aiohttp.ClientTimeout(total=None, sock_read=self._timeout_seconds)
        try:
            async with self._open().get(
                URL(self._origin + path, encoded=True), headers=self._headers, timeout=deadline
            ) as answer:
                if answer.status == HTTPStatus.NOT_FOUND:
                    raise UnknownContext(f"the build context {context_hash} is not in the object storage")
                if answer.status != HTTPStatus.OK:
                    said = (await answer.content.read(MAX_REASON_BYTES)).decode(errors="replace")
                    raise ControlPlaneUnreachable(f"GET {path}: status {answer.status}: {said}")
                await _save(answer.content, target)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ControlPlaneUnreachable(f"GET {path}: {type(error).__name__}: {error}") from error

    async def observe(self, observations: Sequence[Observation]) -> None:
        await self._call("POST", "/internal/observations", {"observations": list(observations)})

    async def wanted(self, runner_id: str) -> Sequence[Wanted]:
        return _decode(await self._call("GET", f"/internal/wanted/{_segment(runner_id)}"), _WantedList).sandboxes

    async def heartbeat(self, runner_id: str, heartbeat: Heartbeat) -> None:
        await self._call("POST", f"/internal/runners/{_segment(runner_id)}/heartbeat", heartbeat)

    async def record(self, sessions: Sequence[SessionRecord], commands: Sequence[CommandRecord]) -> None:
        await self._call("POST", "/internal/sessions", {"sessions": list(sessions), "commands": list(commands)})

    async def append_build_log(self, sandbox_id: str, text: str) -> None:
        await self._call("POST", f"/internal/build-logs/{_segment(sandbox_id)}", text)

    async def route(self, key: str) -> Route:
        body = await self._call("GET", f"/internal/route/{_segment(key)}", errors={404: UnknownRoute})
        return _decode(body, Route)

    async def ssh_access(self, token: str) -> str:
        errors = {404: UnknownRoute, 410: SshAccessExpired}
        body = await self._call("GET", f"/internal/ssh-access/{_segment(token)}", errors=errors)
        return _decode(body, _SshAccess).sandbox_id

    async def check_key(self, key: str) -> KeyGrant:
        return _decode(await self._call("POST", "/internal/keys/check", {"key": key}, errors={401: BadKey}), KeyGrant)

    async def touch(self, activity: Mapping[str, datetime]) -> None:
        await self._call("POST", "/internal/activity", {"sandboxes": dict(activity)})

    async def _call(
        self,
        method: str,
        path: str,
        message: object = None,
        *,
        extra_seconds: float = 0.0,
        errors: Mapping[int, type[ControlPlaneError]] | None = None,
    ) -> bytes:
        """One request; the body of a 2xx answer, or the error that the wire gives its status."""
        plain = isinstance(message, str)
        data = message.encode() if isinstance(message, str) else msgspec.json.encode(message)
        headers = {**self._headers, "Content-Type": "text/plain" if plain else "application/json"}
        deadline = aiohttp.ClientTimeout(total=self._timeout_seconds + extra_seconds)
        url = URL(self._origin + path, encoded=True)
        try:
            async with self._open().request(
                method, url, data=None if message is None else data, headers=headers, timeout=deadline
            ) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ControlPlaneUnreachable(f"{method} {path}: {type(error).__name__}: {error}") from error
        if answer.status < 300:
            return body
        if errors is not None and answer.status in errors:
            raise errors[answer.status](f"{method} {path}")
        if answer.status >= 500:
            raise ControlPlaneUnreachable(f"{method} {path}: status {answer.status}")
        raise ControlPlaneRefused(f"{method} {path}: status {answer.status}")

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(self._socket_path) if self._socket_path else None
            self._session = aiohttp.ClientSession(connector=connector)
        return self._session


async def _save(content: aiohttp.StreamReader, target: Path) -> None:
    file = await asyncio.to_thread(target.open, "wb")
    try:
        async for chunk in content.iter_chunked(COPY_BYTES):
            await asyncio.to_thread(file.write, chunk)
    finally:
        await asyncio.to_thread(file.close)


def _segment(value: str) -> str:
    return quote(value, safe="")


def _decode(body: bytes, kind: type[Answer]) -> Answer:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.MsgspecError as error:
        raise ControlPlaneRefused(f"an answer that is no {kind.__name__}: {error}") from error
