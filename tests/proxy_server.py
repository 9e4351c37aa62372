"""An HTTP proxy of a test's host: `PORT LOG CERTIFICATE|- NAME=ADDRESS...`. Says `ready` first.

It wants the user `me` with the password `p@ss`, knows these names only, and writes what it is asked into the log, a
line each: the first line of the request, and `+` where the credentials were right.
"""

import asyncio
import base64
import contextlib
import ssl
import sys
from pathlib import Path

CREDENTIALS = b"proxy-authorization: basic " + base64.b64encode(b"me:p@ss").lower()
READ_BYTES = 1 << 16


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(READ_BYTES):
            writer.write(data)
            await writer.drain()
    writer.close()


def note(log: str, line: str) -> None:
    with Path(log).open("a") as file:
        file.write(line)


async def main(port: str, log: str, certificate: str, *names: str) -> None:
    known = dict(name.split("=") for name in names)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first = head.split(b"\r\n")[0].decode()
        is_known = CREDENTIALS in head.lower()
        note(log, f"{first} {'+' if is_known else '-'}\n")
        method, target, _ = first.split()
        place = target if method == "CONNECT" else target.split("/")[2]
        host, _, number = place.partition(":")
        if not is_known or host not in known:
            status = "407 Who are you" if not is_known else "404 Unknown"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
            writer.close()
            return
        there, here = await asyncio.open_connection(known[host], int(number or 80))
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\nX-Proxy: yes\r\n\r\n")
        else:
            here.write(head.replace(target.encode(), b"/" + target.split("/", 3)[3].encode(), 1))
        await asyncio.gather(copy(reader, here), copy(there, writer))

    context = None
    if certificate != "-":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    server = await asyncio.start_server(serve, "0.0.0.0", int(port), ssl=context)  # noqa: S104  the namespace is its own
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
