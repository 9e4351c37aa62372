"""How credentials reach git: by its own credential protocol, from memory that only its processes can open.

Nothing of them stands on a command line or in an environment. Git is told to include a configuration from an
anonymous file it inherits; that names one credential helper, for the remote's origin alone, which prints a second
such file. A URL that carries a password is replaced by one without it, since git would pass it on as an argument.
"""

import base64
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote, unquote

from sandyard_daemon.errors import BadRequest

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?:(?P<user>[^/?#]*)@)?(?P<rest>[^/?#]+.*|/.*)", re.DOTALL)
_USER_IN_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^\s/@'\"]+@")
_HIDDEN = "***"
_TOKEN_LENGTH = 20


class Credentials(NamedTuple):
    """A name and its password or token."""

    username: str
    password: str


class Access(NamedTuple):
    """What one git command may know to reach one remote."""

    url: str
    """As the remote is configured."""
    clean_url: str
    """Without user and password."""
    credentials: Credentials | None

    @classmethod
    def to(cls, url: str, given: Credentials | None) -> "Access":
        """Of the credentials given, else of those in the URL. Raises `BadRequest` where they mean nothing."""
        match = _URL.fullmatch(url)
        if match is None or match["scheme"].lower() not in ("http", "https"):
            if given is not None:
                raise BadRequest("username and password are for http and https remotes")
            return cls(url, url, None)
        credentials = given or _of_url(match["user"] or "")
        if credentials is None:
            return cls(url, url, None)
        return cls(url, f"{match['scheme']}://{match['rest']}", credentials)

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        scheme, _, rest = self.clean_url.partition("://")
        return f"{scheme}://{re.split('[/?#]', rest, maxsplit=1)[0]}"

    def redact(self, text: str) -> str:
        """`text` without anything secret in it."""
        if self.credentials is not None:
            for secret in _spellings(self.credentials):
                text = text.replace(secret, _HIDDEN)
        return redact_urls(text)


NO_ACCESS = Access("", "", None)


def redact_urls(text: str) -> str:
    """`text` with the user part of every URL hidden."""
    return _USER_IN_URL.sub(rf"\1{_HIDDEN}@", text)


@contextmanager
def configuration(access: Access) -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Arguments for git, and the descriptors it must inherit for them."""
    if access.credentials is None:
        yield [], ()
        return
    username, password = access.credentials
    with memory_file(f"username={username}\npassword={password}\n".encode()) as answer:
        helper = f'!f() {{ test "$1" != get || cat /proc/self/fd/{answer}; }}; f'
        lines = ["[credential]", "helper =", f"[credential {quoted(access.origin)}]", f"helper = {quoted(helper)}"]
        if access.clean_url != access.url:
            lines += [f"[url {quoted(access.clean_url)}]", f"insteadOf = {quoted(access.url)}"]
        with memory_file("\n".join([*lines, ""]).encode()) as settings:
            yield ["-c", f"include.path=/proc/self/fd/{settings}"], (settings, answer)


@contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    """The descriptor of a file without a name, at its beginning."""
    descriptor = os.memfd_create("sandyard-git")
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


def quoted(text: str) -> str:
    """A value or a subsection as git's configuration files spell it. *Source:* git-config(1), Syntax."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _of_url(user: str) -> Credentials | None:
    """`name:password` or `token:`; a name alone is no secret and stays where it is. Raises `BadRequest`."""
    name, colon, password = user.partition(":")
    if not colon:
        return None
    found = Credentials(unquote(name), unquote(password))
    if any(character < " " for part in found for character in part):
        raise BadRequest("the user part of the URL holds a control character")
    return found


def _spellings(credentials: Credentials) -> list[str]:
    """The password and the forms it takes on the wire, the longest first; tokens often stand for the name."""
    username, password = credentials
    secrets = [password, username] if len(username) >= _TOKEN_LENGTH or not password else [password]
    found = {base64.b64encode(f"{username}:{password}".encode()).decode()}
    for secret in secrets:
        found |= {secret, quote(secret), quote(secret, safe="")}
    return sorted(found - {""}, key=len, reverse=True)
