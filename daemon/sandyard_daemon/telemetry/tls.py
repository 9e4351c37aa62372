"""TLS for a connection to a collector, checked against the certificates of the sandbox.

Loaded by the first post to an `https://` endpoint. OpenSSL works on bytes in memory; asyncio, which does without `ssl`
in the daemon, moves them.
"""

import os
import sys
from collections.abc import Callable, Mapping
from typing import TypeVar

from sandyard_daemon.telemetry.collector import Bytes

if sys.modules.get("ssl") is None:
    sys.modules.pop("ssl", None)  # `__main__` hides it from asyncio, which would load it in every sandbox
# The configuration of the sandbox's image is for the OpenSSL of that image: it may name modules that are not for ours.
os.environ["OPENSSL_CONF"] = os.devnull
try:
    import ssl
except ImportError as error:
    raise OSError(0, f"the daemon's interpreter was built without TLS: {error}") from error

FILE_VARIABLE, DIRECTORY_VARIABLE = "SSL_CERT_FILE", "SSL_CERT_DIR"
FILES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # RHEL
    "/etc/ssl/cert.pem",  # Alpine, FreeBSD
)
DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")

_READ = 64 << 10
_T = TypeVar("_T")


class NoAuthorities(OSError):
    """The sandbox has no certificates of authorities that can be read, so nobody can be trusted."""


async def secured(plain: Bytes, host: str, variables: Mapping[str, str]) -> Bytes:
    """TLS over a connection just made to `host`. Raises `OSError`: `NoAuthorities`, `ssl.SSLCertVerificationError`."""
    stream = TlsBytes(plain, _context(variables), host)
    await stream.handshake()
    return stream


class TlsBytes:
    """A connection whose bytes are encrypted on the way."""

    def __init__(self, plain: Bytes, context: ssl.SSLContext, host: str) -> None:
        self._plain = plain
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def handshake(self) -> None:
        """Agree on keys, and check who the other side is. Raises `OSError`."""
        await self._step(self._tls.do_handshake)

    async def read(self) -> bytes:
        try:
            return await self._step(lambda: self._tls.read(_READ))
        except ssl.SSLZeroReturnError:
            return b""

    async def write(self, data: bytes) -> None:
        await self._step(lambda: self._tls.write(data))

    def is_usable(self) -> bool:
        return self._plain.is_usable()

    def close(self) -> None:
        self._plain.close()

    async def _step(self, step: Callable[[], _T]) -> _T:
        """Try until it does not need more bytes of the other side."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                pass
            finally:
                if self._outgoing.pending:  # also what tells the other side that its certificate is not accepted
                    await self._plain.write(self._outgoing.read())
            if data := await self._plain.read():
                self._incoming.write(data)
            else:
                self._incoming.write_eof()


def _context(variables: Mapping[str, str]) -> ssl.SSLContext:
    """Whom the sandbox trusts now. Raises `NoAuthorities`."""
    file, directory = authorities(variables)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_verify_locations(file, directory)
    except OSError as error:
        raise NoAuthorities(0, f"the CA certificates of {file or directory} cannot be read: {error}") from error
    return context


def authorities(variables: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The file and the directory to read. What the variables name counts alone, as in other programs."""
    file, directory = variables.get(FILE_VARIABLE) or None, variables.get(DIRECTORY_VARIABLE) or None
    if file is None and directory is None:
        file = next((path for path in FILES if os.path.exists(path)), None)
        directory = next((path for path in DIRECTORIES if _is_hashed(path)), None)
    if file is None and directory is None:
        raise NoAuthorities(
            0,
            f"this sandbox has no CA certificates: {FILE_VARIABLE} and {DIRECTORY_VARIABLE} are not set and none of the"
            " usual places has any; install ca-certificates or set one of the two",
        )
    return file, directory


def _is_hashed(directory: str) -> bool:
    """Whether its files are named as OpenSSL looks for them: eight hexadecimal digits, a dot, a number."""
    try:
        with os.scandir(directory) as entries:
            return any(len(entry.name) > 9 and entry.name[8] == "." and entry.name[9:].isdigit() for entry in entries)
    except OSError:
        return False
