"""Terminals with both clients of the newest SDK: create, type, resize, connect, wait, kill; prints one JSON object."""

import asyncio
import json
import sys
import threading
from typing import Any

from daytona import AsyncDaytona, Daytona, DaytonaError
from daytona.common.pty import PtySize

QUIET = "PS1=; stty -echo; printf 'rea%s\\n' dy\n"


def refused(error: DaytonaError) -> list[str]:
    """Class and text."""
    return [type(error).__name__, str(error)]


def use_sync(sandbox: Any) -> dict[str, Any]:
    """One conversation with the synchronous client."""
    saw: dict[str, Any] = {}
    process = sandbox.process
    handle = process.create_pty_session(
        "sync", cwd="/usr", envs={"GREETING": "hi there"}, pty_size=PtySize(cols=100, rows=30)
    )
    saw["listed"] = [session.id for session in process.list_pty_sessions()]
    info = process.get_pty_session_info("sync")
    saw["info"] = [info.id, info.cwd, info.cols, info.rows, info.active, info.lazy_start, info.envs["GREETING"]]
    try:
        process.create_pty_session("sync")
    except DaytonaError as error:
        saw["duplicate"] = refused(error)
    handle.send_input(QUIET + 'stty size; pwd; echo "$GREETING $TERM"\n')
    resized = handle.resize(PtySize(cols=120, rows=40))
    saw["resized"] = [resized.cols, resized.rows]
    handle.send_input("stty size\n")
    handle.send_input(b"exit 3\n")
    shown: list[bytes] = []
    result = handle.wait(on_data=shown.append, timeout=30)
    saw["shown"] = b"".join(shown).decode()
    saw["exit"] = [result.exit_code, result.error]
    saw["after"] = [session.id for session in process.list_pty_sessions()]

    handle = process.create_pty_session("again")
    handle.send_input("KEPT=still; echo fir''st\n")
    for data in handle:
        if b"first" in data:
            break
    handle.disconnect()
    handle = process.connect_pty_session("again")
    handle.send_input("echo $KEPT-here\n")
    shown = []
    killer = threading.Thread(target=process.kill_pty_session, args=("again",))

    def show(data: bytes) -> None:
        shown.append(data)
        if killer.ident is None and b"still-here" in b"".join(shown):  # not before it is shown
            killer.start()

    result = handle.wait(on_data=show, timeout=30)
    killer.join()
    saw["reconnected"] = b"".join(shown).decode()
    saw["killed"] = [result.exit_code, result.error]
    try:
        process.get_pty_session_info("again")
    except DaytonaError as error:
        saw["gone"] = refused(error)
    try:
        process.connect_pty_session("again")
    except DaytonaError as error:
        saw["connect_gone"] = refused(error)
    return saw


async def use_async(sandbox: Any) -> dict[str, Any]:
    """One conversation with the asynchronous client."""
    saw: dict[str, Any] = {}
    process = sandbox.process
    shown = bytearray()
    handle = await process.create_pty_session("async", on_data=shown.extend, envs={"BIG": "x" * 40_000})
    await handle.wait_for_connection()
    await handle.send_input(QUIET + "echo ${#BIG}; stty size; exit 0\n")
    result = await asyncio.wait_for(handle.wait(), 30)
    saw["shown"], saw["exit"] = shown.decode(), [result.exit_code, result.error]
    second = bytearray()
    handle = await process.create_pty_session("killed", on_data=second.extend, pty_size=PtySize(cols=91, rows=31))
    await handle.send_input("sleep 1000\n")
    await handle.kill()
    result = await asyncio.wait_for(handle.wait(), 30)
    saw["killed"] = [result.exit_code, result.error]
    return saw


async def main() -> None:
    """Create, use, delete."""
    with_sync = Daytona().create()
    try:
        saw = {"sync": await asyncio.to_thread(use_sync, with_sync)}
    finally:
        with_sync.delete()
    async with AsyncDaytona() as daytona:
        sandbox = await daytona.create()
        try:
            saw["async"] = await use_async(sandbox)
        finally:
            await sandbox.delete()
    json.dump(saw, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
