"""Programs on terminals: which shell, with which environment, and what its end is called."""

import os
from collections.abc import Mapping, Sequence

from sandyard_daemon.environment import Environment
from sandyard_daemon.errors import BadRequest
from sandyard_daemon.supervised import Exit, Program

TERM = "xterm-256color"
MAX_VARIABLE = 120 << 10
"""Bytes of one variable; Linux takes 128 KiB in one string."""
MAX_VARIABLES = 1 << 20
"""Bytes of all variables that one client sends."""

_REASONS = {130: "Ctrl+C", 137: "SIGKILL", 143: "SIGTERM"}
_LANGUAGE = ("LC_ALL", "LANG")


def login_shell(environment: Environment) -> list[str]:
    """The arguments of an interactive login shell. Raises `Internal` in an image without any."""
    return [environment.shell(), "-i", "-l"]


def terminal_program(
    environment: Environment, arguments: Sequence[str], *, far: int, cwd: str | None, envs: Mapping[str, str]
) -> Program:
    """A program that the terminal whose far side is `far` controls."""
    variables = {name: value for name, value in environment.variables.items() if name not in ("COLUMNS", "LINES")}
    variables["TERM"] = TERM
    if not any(variables.get(name) for name in _LANGUAGE):
        variables["LANG"] = "C.UTF-8"
    directories = (environment.resolve(cwd), environment.home, "/")
    limits = environment.descriptor_limits
    return Program(arguments, variables | dict(envs), directories, limits, (far, far, far), is_terminal=True)


def checked_directory(environment: Environment, cwd: str | None) -> str:
    """The directory that a client named, as a whole path. Raises `BadRequest` when it is none."""
    if cwd is not None and "\0" in cwd:
        raise BadRequest("cwd holds a NUL character")
    path = environment.resolve(cwd)
    if cwd and not os.path.isdir(path):
        raise BadRequest(f"cwd is not a directory: {path}")
    return path


def checked_variables(value: object) -> dict[str, str]:
    """Environment variables as a client sent them. Raises `BadRequest`."""
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise BadRequest("envs must map names to strings")
    total = 0
    for name, item in value.items():
        if not name or any(character in name for character in "=\0\r\n"):
            raise BadRequest(f"envs: {name[:100]!r} is not a name of an environment variable")
        if "\0" in item:
            raise BadRequest(f"envs: the value of {name} holds a NUL character")
        size = len(name.encode("utf-8", "replace")) + len(item.encode("utf-8", "replace"))
        if size > MAX_VARIABLE:
            raise BadRequest(f"envs: {name[:100]} has more than {MAX_VARIABLE} bytes")
        total += size
    if total > MAX_VARIABLES:
        raise BadRequest(f"envs has more than {MAX_VARIABLES} bytes")
    return dict(value)


def exit_message(exit: Exit) -> dict[str, object]:
    """`exitCode`, with `exitReason` unless it is 0."""
    if exit.code == 0:
        return {"exitCode": 0}
    reason = _REASONS.get(exit.code) or (f"signal {exit.code - 128}" if exit.code > 128 else "non-zero exit")
    return {"exitCode": exit.code, "exitReason": exit.problem[:60] or reason}
