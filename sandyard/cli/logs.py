"""`sandyard logs`: the log of one session command, to the streams it came from."""

import asyncio
import sys
from typing import Any
from urllib.parse import quote

import aiohttp
import click

from sandyard.cli.client import Client, find
from sandyard.cli.lifetime import run
from sandyard.cli.options import settings_of, settings_options
from sandyard_daemon.wire import Stream
from sandyard_daemon.wire.markers import Demultiplexer

CONNECT_SECONDS = 10


@click.command()
@settings_options("data_dir")
@click.option("-f", "--follow", is_flag=True, help="Go on until the command has ended.")
@click.argument("sandbox")
@click.argument("session")
@click.argument("command")
def logs(follow: bool, sandbox: str, session: str, command: str, **options: Any) -> None:
    """Print the log of COMMAND in SESSION of SANDBOX: its stdout here, its stderr to standard error."""
    settings = settings_of(**options)
    segments = "/".join(quote(part, safe="") for part in ("process", "session", session, "command", command))
    path = f"/toolbox/{quote(sandbox, safe='')}/{segments}/logs"
    run(_print(find(settings), path, follow=follow), log_level=settings.log_level)


async def _print(client: Client, path: str, *, follow: bool) -> None:
    # Asking for 0.100.0's form gives the raw bytes of both streams with markers; JSON would lose what is not UTF-8.
    headers = client.headers | {"X-Daytona-SDK-Version": "0.100.0"}
    timeout = aiohttp.ClientTimeout(total=None, connect=CONNECT_SECONDS)
    split = Demultiplexer()
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        url = client.origin + path + ("?follow=true" if follow else "")
        async with session.get(url) as answer:
            if answer.status != 200:
                body = await answer.json()
                raise click.ClickException(str(body.get("message", answer.reason)))
            async for chunk in answer.content.iter_any():
                for stream, data in split.feed(chunk):
                    await asyncio.to_thread(_write, stream, data)
        for stream, data in split.flush():
            _write(stream, data)


def _write(stream: Stream, data: bytes) -> None:
    target = sys.stdout if stream is Stream.STDOUT else sys.stderr
    target.buffer.write(data)
    target.buffer.flush()
