"""Which program serves a language, where it is found, and what to install where there is none."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from sandyard_daemon.errors import BadRequest, Internal

_PLACES = ("/usr/local/bin", "/usr/bin", "/bin")
_PYTHON = re.compile(r"\.pyi?$")
_SCRIPT = re.compile(r"\.([mc]?[jt]s|[jt]sx)$")
_PYRIGHT_READ_ALL = re.compile(r"^(Found \d+ source files?|No source files found)")
_SCRIPT_KINDS = {
    ".ts": "typescript",
    ".mts": "typescript",
    ".cts": "typescript",
    ".tsx": "typescriptreact",
    ".js": "javascript",
    ".mjs": "javascript",
    ".cjs": "javascript",
    ".jsx": "javascriptreact",
}


class Program(NamedTuple):
    """A language server."""

    name: str
    arguments: tuple[str, ...]
    sources: re.Pattern[str]
    """File names it reads."""
    read_all: re.Pattern[str] | None = None
    """A log message of it: the project's files are known now."""
    needs_document: bool = False
    """It knows nothing of a project before one of its files was opened."""
    options: Mapping[str, object] = {}
    """Its `initializationOptions`."""


# `disableAutomaticTypingAcquisition`: no downloads that nobody asked for.
_TYPESCRIPT = Program(
    "typescript-language-server",
    ("--stdio",),
    _SCRIPT,
    needs_document=True,
    options={"disableAutomaticTypingAcquisition": True},
)
_LANGUAGES: dict[str, tuple[Program, ...]] = {
    "python": (
        Program("basedpyright-langserver", ("--stdio",), _PYTHON, read_all=_PYRIGHT_READ_ALL),
        Program("pyright-langserver", ("--stdio",), _PYTHON, read_all=_PYRIGHT_READ_ALL),
        Program("pylsp", (), _PYTHON),
    ),
    "typescript": (_TYPESCRIPT,),
    "javascript": (_TYPESCRIPT,),
}
"""The first that is there is taken."""
_INSTALL = {
    "python": "`pip install basedpyright`",
    "typescript": "`npm install --global typescript@5 typescript-language-server` (Node 20 or later)",
}
_INSTALL["javascript"] = _INSTALL["typescript"]


def language(name: str) -> str:
    """The language's canonical name. Raises `BadRequest` for one that has no server."""
    lowered = name.lower()
    if lowered not in _LANGUAGES:
        raise BadRequest(f"languageId {name!r} is not supported; there are {', '.join(_LANGUAGES)}")
    return lowered


def find(language_id: str, project: str, variables: Mapping[str, str]) -> tuple[Program, str]:
    """The program and its path. Raises `Internal` when none is installed, with what to install."""
    programs = _LANGUAGES[language_id]
    for program in programs:
        for place in _places(project, variables):
            path = os.path.join(place, program.name)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return program, path
    names = ", ".join(program.name for program in programs)
    raise Internal(
        f"no language server for {language_id} is installed in this sandbox (looked for {names});"
        f" install one by {_INSTALL[language_id]}, or use the image sandyard/sandbox:full"
    )


def kind_of_document(language_id: str, path: str) -> str:
    """The protocol's language id of a file."""
    if language_id == "python":
        return language_id
    return _SCRIPT_KINDS.get(os.path.splitext(path)[1].lower(), language_id)


def _places(project: str, variables: Mapping[str, str]) -> Iterator[str]:
    for place in variables.get("PATH", "").split(":"):
        if place.startswith("/"):
            yield place
    yield from _PLACES
    yield os.path.join(variables.get("HOME", "/"), ".local/bin")
    yield os.path.join(project, "node_modules/.bin")
