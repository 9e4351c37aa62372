"""Git's settings: reading and setting one, the user's name, stored credentials."""

import os
import re

from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import BadRequest, Conflict, InvalidBody
from sandyard_daemon.git.access import quoted
from sandyard_daemon.git.failures import Rule
from sandyard_daemon.git.fields import line, query_text, scope, text, text_or_none
from sandyard_daemon.git.process import Command, Git
from sandyard_daemon.git.repository import Repository, expect
from sandyard_daemon.http.messages import Answer, Handler, Request, Response, json_response

_KEY = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9.-]*(\.[^\n\0]+)?\.[A-Za-z][A-Za-z0-9-]*|[A-Za-z0-9][A-Za-z0-9-]*\.[A-Za-z][\w-]*"
)
_HOST = re.compile(r"[^\s/@?#\\'\"]+")
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_UNSET, _INVALID = 1, 3
_INVALID_KEY: tuple[Rule, ...] = (("invalid key|does not contain", BadRequest),)


class ConfigurationRoutes:
    """Settings and credentials."""

    def __init__(self, git: Git, environment: Environment) -> None:
        self._git = git
        self._environment = environment

    def handlers(self) -> dict[str, Handler]:
        """By operation id."""
        return {
            "GetGitConfig": self.get,
            "SetGitConfig": self.set,
            "ConfigureUser": self.user,
            "Authenticate": self.authenticate,
        }

    async def get(self, request: Request) -> Answer:
        """The value at one scope, `null` where it is not set."""
        key = _key(query_text(request, "key"))
        repository, option = self._at(scope(request.query.get("scope")), request.query.get("path"))
        finished = await repository.attempt("config", option, "--null", "--get", "--", key)
        if finished.exit_code == _UNSET and not finished.stderr:
            return json_response(200, {"value": None})
        value = expect(finished, _INVALID_KEY).decode("utf-8", "replace").removesuffix("\0")
        return json_response(200, {"value": value})

    async def set(self, request: Request) -> Answer:
        """One value in place of all there are."""
        body = await request.json_object()
        key, value = _key(text(body, "key")), text(body, "value")
        repository, option = self._at(scope(text_or_none(body, "scope")), text_or_none(body, "path"))
        await _set(repository, option, key, value)
        return Response(200)

    async def user(self, request: Request) -> Answer:
        """`user.name` and `user.email`."""
        body = await request.json_object()
        name, email = line(body, "name"), line(body, "email")
        repository, option = self._at(scope(text_or_none(body, "scope")), text_or_none(body, "path"))
        await _set(repository, option, "user.name", name)
        await _set(repository, option, "user.email", email)
        return Response(200)

    async def authenticate(self, request: Request) -> Answer:
        """Keep a password in git's own store, which is a plain file of the user, and have git ask it."""
        body = await request.json_object()
        host, protocol = text_or_none(body, "host") or "github.com", text_or_none(body, "protocol") or "https"
        facts = {
            "protocol": protocol,
            "host": host,
            "username": line(body, "username"),
            "password": line(body, "password"),
        }
        if not _HOST.fullmatch(host) or not _PROTOCOL.fullmatch(protocol):
            raise InvalidBody("host must be a host, perhaps with a port, and protocol the name of a URL scheme")
        repository = Repository(self._git, "/")
        helpers = await repository.attempt("config", "--global", "--null", "--get-all", "credential.helper")
        if b"store" not in helpers.stdout.split(b"\0"):
            await repository.run("config", "--global", "--add", "credential.helper", "store")
        told = "".join(f"{key}={value}\n" for key, value in facts.items())
        expect(await self._git.run(Command(("credential-store", "store"), "/", told.encode())))
        return Response(200)

    def _at(self, chosen: str, path: str | None) -> tuple[Repository, str]:
        """Where git is asked, and its option for the scope. Raises `BadRequest`."""
        if chosen != "local":
            return Repository(self._git, "/"), f"--{chosen}"
        if not path:
            raise BadRequest("the local scope needs the path of a repository")
        if "\0" in path:
            raise BadRequest("path holds a NUL character")
        return Repository(self._git, self._environment.resolve(path)), "--local"


async def set_privately(repository: Repository, key: str, value: str) -> None:
    """Set a value of the repository's own file so that it never stands on a command line. Raises `Conflict`.

    Under git's own lock a copy gets a placeholder from git, the placeholder its value, and the copy the file's place.
    """
    place = await repository.run("rev-parse", "--git-path", "config")
    path = _resolved(repository.directory, place)
    lock, placeholder = f"{path}.lock", f"sandyard-{os.urandom(12).hex()}"
    _lock(path, lock)
    try:
        await repository.run("config", "--file", lock, "--replace-all", "--", key, placeholder)
        _replace(lock, placeholder, value)
        os.rename(lock, path)
    except BaseException:
        os.unlink(lock)
        raise


def _resolved(directory: str, printed: bytes) -> str:
    return os.path.realpath(os.path.join(directory, os.fsdecode(printed.rstrip(b"\n"))))


def _lock(path: str, lock: str) -> None:
    """Take git's lock of a file, with the file's content in it. Raises `Conflict`."""
    try:
        descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise Conflict(f"the configuration is being changed by somebody else: {lock} exists") from error
    with open(descriptor, "wb") as copy, open(path, "rb") as original:
        os.fchmod(descriptor, os.fstat(original.fileno()).st_mode & 0o777)
        copy.write(original.read())


def _replace(path: str, placeholder: str, value: str) -> None:
    with open(path, "rb+") as file:
        content = file.read().replace(placeholder.encode(), quoted(value).encode())
        file.seek(0)
        file.write(content)
        file.truncate()


async def _set(repository: Repository, option: str, key: str, value: str) -> None:
    await repository.run("config", option, "--replace-all", "--", key, value, rules=_INVALID_KEY)


def _key(value: str) -> str:
    """`section.key` or `section.subsection.key`. Raises `BadRequest`."""
    if _KEY.fullmatch(value) is None:
        raise BadRequest(f"{value!r} is not the key of a git setting: it is section.name or section.subsection.name")
    return value
