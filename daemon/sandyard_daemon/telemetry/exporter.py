"""Three tasks: one posts what the sandbox uses from time to time, one the lines of the entrypoint's log as they come,
one the requests that are over."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterator, Mapping
from enum import Enum, auto
from typing import Any

from sandyard_daemon.diary import report
from sandyard_daemon.sessions.log import CommandLog
from sandyard_daemon.system.metrics import Meter
from sandyard_daemon.telemetry.collector import Collector, Refused, Unusable
from sandyard_daemon.telemetry.documents import Line, logs_document, metrics_document, resource, spans_document
from sandyard_daemon.telemetry.spans import Span, SpanQueue, Tracer
from sandyard_daemon.wire import LogFrame, Stream

INTERVAL_VARIABLE = "OTEL_METRIC_EXPORT_INTERVAL"
"""Milliseconds between two metrics. *Source:* OpenTelemetry's environment variables."""
INTERVAL_SECONDS = 60.0
DELAY_VARIABLE = "OTEL_BSP_SCHEDULE_DELAY"
"""Milliseconds that a span waits for others. *Source:* the same."""
DELAY_SECONDS = 5.0
FLUSH_SECONDS = 1.0
"""What an end of the daemon waits for a collector, at the most."""
MAX_LINES = 500
"""In one post."""
MAX_LINE = 64 << 10
"""Bytes; a longer line is sent in pieces."""

_RETRY_SECONDS = (1.0, 2.0, 5.0, 15.0, 30.0)


def open_exporter(endpoint: str, token: str, variables: Mapping[str, str], log: CommandLog) -> "Exporter | None":
    """Begin to export; `None` for an endpoint that cannot be used, which is said in the daemon's own log."""
    try:
        return Exporter(Collector(endpoint, variables), token, variables, log)
    except Unusable as error:
        report("telemetry_off", reason=str(error))
        return None


class _Outcome(Enum):
    """What became of a post."""

    TAKEN = auto()
    REFUSED = auto()
    """For good."""
    FAILED = auto()
    """Another attempt may do."""


class Exporter:
    """Sends until it is closed. What a collector misses is retried (log lines, spans) or left out (metrics)."""

    def __init__(self, collector: Collector, token: str, variables: Mapping[str, str], log: CommandLog) -> None:
        self.token = token
        self._spans = SpanQueue()
        self.tracer = Tracer(self._spans)
        """What the requests to be told of pass through."""
        self._collector = collector
        self._who = resource(variables)
        self._failing: set[str] = set()
        self._dropped = 0
        self._sending: list[Span] = []
        self._log_task = _started(self._send_log(log))
        self._tasks = [
            self._log_task,
            _started(self._send_metrics(_seconds(variables, INTERVAL_VARIABLE, INTERVAL_SECONDS))),
            _started(self._send_spans(_seconds(variables, DELAY_VARIABLE, DELAY_SECONDS))),
        ]

    async def close(self) -> None:
        """Send what waits, in at the most `FLUSH_SECONDS`, and stop. Called when every request and session ended."""
        until = asyncio.get_running_loop().time() + FLUSH_SECONDS
        await asyncio.wait([self._log_task], timeout=FLUSH_SECONDS)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._flush()
        self._collector.close()
        self._count(len(self._sending) + len(self._spans))

    async def _flush(self) -> None:
        while spans := self._sending or self._spans.take():
            self._sending = spans
            if await self._post("/v1/traces", spans_document(self._who, spans)) is not _Outcome.TAKEN:
                return
            self._sending = []

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

    async def _send_spans(self, delay: float) -> None:
        while True:
            self._sending = await self._spans.batch(delay)
            outcome = await self._insist("/v1/traces", spans_document(self._who, self._sending))
            refused = len(self._sending) if outcome is _Outcome.REFUSED else 0
            self._sending = []
            self._count(refused)

    def _count(self, refused: int) -> None:
        """Say what was lost since the last time that was said."""
        dropped, self._spans.dropped = self._spans.dropped + refused, 0
        if dropped:
            self._dropped += dropped
            report("spans_dropped", count=dropped, total=self._dropped)

    async def _insist(self, path: str, document: dict[str, Any]) -> _Outcome:
        """Post until it is taken or refused for good. The log waits in its file meanwhile, spans in their queue."""
        attempt = 0
        while (outcome := await self._post(path, document)) is _Outcome.FAILED:
            await asyncio.sleep(_RETRY_SECONDS[min(attempt, len(_RETRY_SECONDS) - 1)])
            attempt += 1
        return outcome

    async def _post(self, path: str, document: dict[str, Any]) -> _Outcome:
        """Of failures in a row, the first of each path is reported."""
        problem: Exception
        try:
            await self._collector.post(path, document, self.token)
        except Refused as error:
            may_retry = error.status == 429 or error.status >= 500
            problem, outcome = error, _Outcome.FAILED if may_retry else _Outcome.REFUSED
        except (OSError, TimeoutError) as error:
            problem, outcome = error, _Outcome.FAILED
        else:
            self._failing.discard(path)
            return _Outcome.TAKEN
        if path not in self._failing:
            self._failing.add(path)
            report("telemetry_failed", path=path, error=str(problem) or type(problem).__name__)
        return outcome


def _started(work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
    return asyncio.get_running_loop().create_task(work)


def _seconds(variables: Mapping[str, str], name: str, default: float) -> float:
    """A variable in milliseconds."""
    milliseconds = variables.get(name, "")
    return int(milliseconds) / 1000 if milliseconds.isdigit() and int(milliseconds) else default


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
