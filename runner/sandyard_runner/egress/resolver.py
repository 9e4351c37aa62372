"""Asking the machine's name servers, or those of a setting."""

import asyncio
import contextlib
import ipaddress
import socket
import struct
from collections.abc import Sequence

from sandyard_runner.egress.messages import BadMessage, addresses, make_query
from sandyard_runner.egress.outside import Outside

ANSWER_SECONDS = 3.0
AGAIN_SECONDS = 1.0
"""A question may be lost on its way, and so may its answer."""
DNS_PORT = 53
TRUNCATED = 0x0200


class _Asking(asyncio.DatagramProtocol):
    def __init__(self, number: bytes) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._number = number

    def datagram_received(self, data: bytes, addr: object) -> None:
        if data[:2] == self._number and not self.answer.done():
            self.answer.set_result(data)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)


class Resolver:
    """Asks name servers one after the other, each from a port of its own."""

    def __init__(self, servers: Sequence[str], outside: Outside) -> None:
        self._servers = tuple(servers)
        self._outside = outside

    async def ask(self, query: bytes) -> bytes:
        """The answer to a query. Raises `OSError` (`TimeoutError`) when no server answers."""
        failure: OSError = OSError("there is no name server")
        for host, port in await self._addresses():
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await self._ask(query, host, port)
            except OSError as error:  # and TimeoutError, which is one
                failure = error
        raise failure

    async def addresses(self, name: str) -> list[tuple[str, int]]:
        """IPv4 addresses of a name with their time to live; of an address itself. Raises `OSError`."""
        with contextlib.suppress(ValueError):
            return [(str(ipaddress.IPv4Address(name)), 0)]
        try:
            return addresses(await self.ask(make_query(name)))
        except (BadMessage, UnicodeError) as error:
            raise OSError(f"{name} cannot be looked up: {error}") from error

    async def _addresses(self) -> list[tuple[str, int]]:
        found = []
        for server in self._servers or _machine_servers((await self._outside.read())[-1]):
            host, _, port = server.partition(":") if server.count(":") == 1 else (server, "", "")
            found.append((host, int(port or DNS_PORT)))
        return found

    async def _ask(self, query: bytes, host: str, port: int) -> bytes:
        loop = asyncio.get_running_loop()
        made = await self._connected(socket.SOCK_DGRAM, host, port)
        transport, asking = await loop.create_datagram_endpoint(lambda: _Asking(query[:2]), sock=made)
        try:
            while not asking.answer.done():
                transport.sendto(query)
                await asyncio.wait((asking.answer,), timeout=AGAIN_SECONDS)
            answer = asking.answer.result()
        finally:
            transport.close()
        if len(answer) > 4 and struct.unpack_from("!H", answer, 2)[0] & TRUNCATED:
            return await self._ask_stream(query, host, port)
        return answer

    async def _ask_stream(self, query: bytes, host: str, port: int) -> bytes:
        reader, writer = await asyncio.open_connection(sock=await self._connected(socket.SOCK_STREAM, host, port))
        try:
            writer.write(struct.pack("!H", len(query)) + query)
            size = struct.unpack("!H", await reader.readexactly(2))[0]
            return await reader.readexactly(size)
        except asyncio.IncompleteReadError as error:
            raise OSError("the name server hung up") from error
        finally:
            writer.close()

    async def _connected(self, kind: socket.SocketKind, host: str, port: int) -> socket.socket:
        made = await self._outside.make_socket(kind, socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            await asyncio.get_running_loop().sock_connect(made, (host, port))
        except BaseException:
            made.close()
            raise
        return made


def _machine_servers(resolv_conf: str) -> list[str]:
    lines = (line.split() for line in resolv_conf.splitlines())
    return [words[1] for words in lines if len(words) > 1 and words[0] == "nameserver"]
