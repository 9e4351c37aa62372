"""Running something until it is told to end: event loop, signals, log output."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import click
import structlog

from sandyard.bus import BusError
from sandyard.ids import UsedDatabase
from sandyard.keeping import DataDirectoryInUse
from sandyard.saving.errors import BadArchive, Unreadable
from sandyard.settings import InvalidSetting
from sandyard_api.database import UnusableDatabase
from sandyard_api.sealing.service import WrongKey
from sandyard_runner.errors import RunnerError

Result = TypeVar("Result")
MENDABLE = (
    InvalidSetting,
    UnusableDatabase,
    WrongKey,
    UsedDatabase,
    BadArchive,
    Unreadable,
    RunnerError,
    BusError,
    OSError,
)
"""What a user can mend."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(work: Coroutine[Any, Any, Result], *, log_level: str) -> Result:
    """Run `work` on the fastest loop there is. What a user can mend ends the command with one line, not a trace."""
    set_up_logging(log_level)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(work)
    except (DataDirectoryInUse, *MENDABLE) as error:
        raise click.ClickException(str(error)) from error
    except BaseExceptionGroup as group:
        mendable, rest = group.split(MENDABLE)
        if rest is not None or mendable is None:
            raise
        raise click.ClickException("; ".join(str(error) for error in mendable.exceptions)) from group


def _loop_factory() -> Any:
    try:
        import uvloop  # optional: an extra of the package
    except ImportError:
        return None
    return uvloop.new_event_loop


def set_up_logging(level: str) -> None:
    """Events and fields on standard error: readable on a terminal, JSON elsewhere."""
    threshold = getattr(logging, level.upper())
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    # Libraries log through the standard library; what they have to say below a warning is theirs.
    logging.basicConfig(level=max(threshold, logging.WARNING), stream=sys.stderr, format="%(name)s: %(message)s")


@asynccontextmanager
async def told_to_end() -> AsyncIterator[asyncio.Event]:
    """An event that Ctrl-C, SIGTERM and a closed terminal set. A second signal is left to the system's default."""
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()

    def end() -> None:
        ending.set()
        for number in ENDING:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if number != signal.SIGHUP else signal.SIG_IGN)

    for number in ENDING:
        loop.add_signal_handler(number, end)
    try:
        yield ending
    finally:
        for number in ENDING:
            with contextlib.suppress(ValueError):  # the loop may be closing already
                loop.remove_signal_handler(number)


def say(line: str) -> None:
    """One line for the person at the terminal; standard output is kept for what programs read."""
    click.echo(line, err=True)
