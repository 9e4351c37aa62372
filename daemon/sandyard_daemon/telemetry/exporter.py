"""Two tasks: one posts what the sandbox uses from time to time, one the lines of the entrypoint's log as they come."""

import asyncio
import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from sandyard_daemon.diary import report
from sandyard_daemon.sessions.log import CommandLog
from sandyard_daemon.system.metrics import Meter
from sandyard_daemon.telemetry.collector import Collector, Refused, Unusable
from sandyard_daemon.telemetry.documents import Line, logs_document, metrics_document, resource
from sandyard_daemon.wire import LogFrame, Stream

INTERVAL_VARIABLE = "OTEL_METRIC_EXPORT_INTERVAL"
"""Milliseconds between two metrics. *Source:* OpenTelemetry's environment variables."""
INTERVAL_SECONDS = 60.0
MAX_LINES = 500
"""In one post."""
MAX_LINE = 64 << 10
"""Bytes; a longer line is sent in pieces."""

_RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0)


def open_exporter(endpoint: str, token: str, variables: Mapping[str, str], log: CommandLog) -> "Exporter | None":
    """Begin to export; `None` for an endpoint that cannot be used, which is said in the daemon's own log."""
    try:
        return Exporter(Collector(endpoint), token, variables, log)
    except Unusable as error:
        report("telemetry_off", reason=str(error))
        return None


class Exporter:
    """Sends until it is closed. What a collector misses is retried (log lines) or left out (metrics)."""

    def __init__(self, collector: Collector, token: str, variables: Mapping[str, str], log: CommandLog) -> None:
        self.token = token
        self._collector = collector
        self._who = resource(variables)
        self._is_failing = False
        milliseconds = variables.get(INTERVAL_VARIABLE, "")
        interval = int(milliseconds) / 1000 if milliseconds.isdigit() and int(milliseconds) else INTERVAL_SECONDS
        self._tasks = [
            asyncio.ensure_future(self._send_metrics(interval)),
            asyncio.ensure_future(self._send_log(log)),
        ]

    async def close(self) -> None:
        """Stop at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send_metrics(self, interval: float) -> None:
        meter = Meter()
        while True:
            await self._post("/v1/metrics", metrics_document(self._who, await meter.look()))
            await asyncio.sleep(interval)

    async def _send_log(self, log: CommandLog) -> None:
        splitter = Splitter()
        with contextlib.suppress(FileNotFoundError):  # the log was removed: nothing more will come
            async for frames in log.follow(0):
                lines = [line for frame in frames for line in splitter.take(frame)]
                for start in range(0, len(lines), MAX_LINES):
                    await self._insist("/v1/logs", logs_document(self._who, lines[start : start + MAX_LINES]))

    async def _insist(self, path: str, document: dict[str, Any]) -> None:
        """Post until it is taken or refused for good. The log itself waits in its file meanwhile."""
        attempt = 0
        while not await self._post(path, document):
            await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
            attempt += 1

    async def _post(self, path: str, document: dict[str, Any]) -> bool:
        """False when another attempt may do. Of failures in a row the first is reported."""
        problem: Exception
        try:
            await self._collector.post(path, document, self.token)
        except Refused as error:
            problem, may_retry = error, error.status == 429 or error.status >= 500
        except (OSError, TimeoutError) as error:
            problem, may_retry = error, True
        else:
            self._is_failing = False
            return True
        if not self._is_failing:
            self._is_failing = True
            report("telemetry_failed", path=path, error=str(problem) or type(problem).__name__)
        return not may_retry


class Splitter:
    """From frames to lines, each stream on its own; what has no newline yet waits, boundedly."""

    def __init__(self) -> None:
        self._pending = {Stream.STDOUT: b"", Stream.STDERR: b""}

    def take(self, frame: LogFrame) -> Iterator[Line]:
        """The lines that are whole now; at the end record, the rest."""
        at = time.time_ns()
        if frame.stream is Stream.END:
            for stream, rest in self._pending.items():
                if rest:
                    yield _line(rest, stream, at)
            self._pending = {Stream.STDOUT: b"", Stream.STDERR: b""}
            return
        *whole, rest = (self._pending[frame.stream] + frame.payload).split(b"\n")
        while len(rest) > MAX_LINE:
            whole.append(rest[:MAX_LINE])
            rest = rest[MAX_LINE:]
        self._pending[frame.stream] = rest
        for text in whole:
            for start in range(0, max(1, len(text)), MAX_LINE):
                yield _line(text[start : start + MAX_LINE], frame.stream, at)


def _line(text: bytes, stream: Stream, at: int) -> Line:
    return Line(text.decode("utf-8", "replace"), stream is Stream.STDERR, at)
