"""A process in the network of the engine's machine that does for a runner in a container what only such a one can do.

It makes sockets of that network and hands them over, reads the machine's tables, and loads nftables scripts. It decides
nothing, and neither secrets nor requests come by. Its one peer is the runner, at whose end it ends.

    python -m sandyard_runner.egress.broker SOCKET
"""

import json
import shutil
import socket
import struct
import subprocess
import sys
from typing import Any

from sandyard_runner.egress.outside import read_files

NFT_SECONDS = 10.0
LENGTH = struct.Struct("!I")
READ_BYTES = 1 << 16


def serve(path: str) -> None:
    """Answer what is asked on a connection to `path`, to its end."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.connect(path)
        while (request := receive(channel)) is not None:
            answer, made = _answer(request[0])
            send(channel, answer, made)
            if made is not None:
                made.close()


def send(channel: socket.socket, message: dict[str, Any], handed: socket.socket | None = None) -> None:
    """One message, with a socket beside it. Blocks. Raises `OSError`."""
    content = json.dumps(message).encode()
    socket.send_fds(channel, [LENGTH.pack(len(content))], [] if handed is None else [handed.fileno()])
    channel.sendall(content)


def receive(channel: socket.socket) -> tuple[dict[str, Any], socket.socket | None] | None:
    """The next message and what came beside it; `None` at the end. Blocks. Raises `OSError`."""
    head, handed, _, _ = socket.recv_fds(channel, LENGTH.size, 1)
    made = socket.socket(fileno=handed[0]) if handed else None
    if not head:
        return None
    head += _exactly(channel, LENGTH.size - len(head))
    message: dict[str, Any] = json.loads(_exactly(channel, LENGTH.unpack(head)[0]))
    return message, made


def _exactly(channel: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = channel.recv(min(count, READ_BYTES))
        if not part:
            raise ConnectionError("cut short")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], socket.socket | None]:
    try:
        if request["do"] == "socket":
            return {}, socket.socket(request["family"], request["kind"])
        if request["do"] == "read":
            return {"files": read_files()}, None
        return {"problem": _load(request["script"])}, None
    except OSError as error:
        return {"problem": str(error)}, None


def _load(script: str) -> str:
    """Load a script; what nft says against it, or nothing."""
    program = shutil.which("nft")
    if program is None:
        return "nft is not installed"
    try:
        done = subprocess.run(  # noqa: S603  the one program, and scripts of the runner
            [program, "-f", "-"], input=script, capture_output=True, text=True, timeout=NFT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "nft does not end"
    return done.stderr.strip() or f"nft ended with {done.returncode}" if done.returncode else ""


if __name__ == "__main__":
    serve(sys.argv[1])
