"""Reading a Dockerfile as the classic builder does. Nothing is run here. *Source:* Docker's Dockerfile reference."""

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec

from sandyard_runner.errors import RuntimeFailure

DIRECTIVE = re.compile(r"#\s*(?P<name>[a-zA-Z][a-zA-Z0-9-]*)\s*=\s*(?P<value>.*)")
HERE_DOCUMENT = re.compile(r"\d*<<-?[\"']?[A-Za-z_]\w*[\"']?")
FLAG = re.compile(r"--(?P<name>[a-z]+)(?:=(?P<value>\S*))?(?:\s+|$)")
VARIABLE = re.compile(r"\$(?:(?P<plain>\w+)|\{(?P<name>\w+)(?:(?P<how>:[-+])(?P<word>[^}]*))?\})")
KNOWN = frozenset(
    """ADD ARG CMD COPY ENTRYPOINT ENV EXPOSE FROM HEALTHCHECK LABEL MAINTAINER ONBUILD RUN SHELL STOPSIGNAL USER VOLUME
    WORKDIR""".split()
)
WITH_FLAGS = frozenset({"ADD", "COPY", "FROM", "RUN"})


class DockerfileError(RuntimeFailure):
    """The text is no Dockerfile, or one that cannot be built here; the message names the line."""

    code = "DOCKERFILE"


class Instruction(msgspec.Struct, frozen=True):
    """One instruction, its lines joined."""

    line: int
    """Where it begins, from 1."""
    name: str
    """In capitals."""
    text: str
    """What follows the name and the flags."""
    flags: Mapping[str, str]
    escape: str = "\\"

    def __str__(self) -> str:
        flags = "".join(f" --{name}={value}" for name, value in self.flags.items())
        return f"{self.name}{flags} {self.text}".rstrip()

    def json_form(self) -> list[str] | None:
        """The words of the form `["a", "b"]`; `None` for the form that a shell reads."""
        if not self.text.startswith("["):
            return None
        try:
            return msgspec.json.decode(self.text, type=list[str])
        except msgspec.DecodeError:
            return None

    def words(self, variables: Mapping[str, str]) -> list[str]:
        """Its words, unquoted, with variables replaced. Raises `DockerfileError` for a quote that is not closed."""
        form = self.json_form()
        if form is not None:
            return [expand(word, variables) for word in form]
        return list(_split(self, variables))

    def fail(self, reason: str) -> DockerfileError:
        """An error about it."""
        return DockerfileError(f"line {self.line}, {self.name}: {reason}")


def parse(text: str) -> list[Instruction]:
    """Every instruction in order. Raises `DockerfileError`."""
    escape = _escape(text)
    found: list[Instruction] = []
    for line, joined in _joined(text, escape):
        name, _, rest = joined.partition(" ") if " " in joined else joined.partition("\t")
        name, rest = name.upper(), rest.strip()
        if name not in KNOWN:
            raise DockerfileError(f"line {line}: unknown instruction: {name[:100]}")
        if name in ("RUN", "COPY", "ADD") and any(HERE_DOCUMENT.fullmatch(word) for word in rest.split()):
            raise DockerfileError(f"line {line}, {name}: here-documents are not part of builds over the host")
        flags: dict[str, str] = {}
        while name in WITH_FLAGS and (match := FLAG.match(rest)):
            flags[match["name"]], rest = match["value"] or "true", rest[match.end() :]
        found.append(Instruction(line, name, rest, flags, escape))
    return found


def expand(text: str, variables: Mapping[str, str]) -> str:
    """With `$NAME`, `${NAME}`, `${NAME:-word}` and `${NAME:+word}` replaced; an unknown name is nothing."""

    def value(match: re.Match[str]) -> str:
        found = variables.get(match["plain"] or match["name"], "")
        if match["how"] == ":-":
            return found or expand(match["word"], variables)
        if match["how"] == ":+":
            return expand(match["word"], variables) if found else ""
        return found

    return VARIABLE.sub(value, text)


def pairs(instruction: Instruction, variables: Mapping[str, str]) -> dict[str, str]:
    """`KEY=VALUE ...`, or the old form `KEY VALUE`. Raises `DockerfileError`."""
    first, _, rest = instruction.text.partition(" ")
    if first and "=" not in first:
        if not rest.strip():
            raise instruction.fail("must have a name and a value")
        return {first: expand(rest.strip(), variables)}
    found: dict[str, str] = {}
    for word in instruction.words(variables):
        name, is_pair, value = word.partition("=")
        if not is_pair or not name:
            raise instruction.fail(f"{word[:100]!r} is not NAME=VALUE")
        found[name] = value
    if not found:
        raise instruction.fail("must have a name and a value")
    return found


def _escape(text: str) -> str:
    for line in text.splitlines():
        match = DIRECTIVE.fullmatch(line.strip())
        if match is None:
            break
        if match["name"].lower() == "escape" and match["value"].strip() in ("`", "\\"):
            return match["value"].strip()
    return "\\"


def _joined(text: str, escape: str) -> Iterator[tuple[int, str]]:
    """Each instruction with the number of its first line; comments and empty lines are left out, also within one."""
    begun, parts = 0, list[str]()
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.rstrip()
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begun = begun or number
        if line.endswith(escape):
            parts.append(line.removesuffix(escape))
            continue
        parts.append(line)
        yield begun, "".join(parts).strip()
        begun, parts = 0, []
    if joined := "".join(parts).strip():
        yield begun, joined


def _split(instruction: Instruction, variables: Mapping[str, str]) -> Iterator[str]:
    """Words as a shell would see them: variables are replaced outside of single quotes, and split no word."""
    word, is_word = list[str](), False
    text, at = instruction.text, 0
    while at < len(text):
        letter = text[at]
        if letter in " \t":
            if is_word:
                yield "".join(word)
            word, is_word, at = [], False, at + 1
            continue
        is_word = True
        if letter in "'\"":
            end = _closing(instruction, at)
            inner = text[at + 1 : end]
            word.append(inner if letter == "'" else _in_double_quotes(inner, variables, instruction.escape))
            at = end + 1
        elif letter == instruction.escape and at + 1 < len(text):
            word.append(text[at + 1])
            at += 2
        elif match := VARIABLE.match(text, at):
            word.append(expand(match[0], variables))
            at = match.end()
        else:
            word.append(letter)
            at += 1
    if is_word:
        yield "".join(word)


def _closing(instruction: Instruction, begin: int) -> int:
    text, quote, at = instruction.text, instruction.text[begin], begin + 1
    while at < len(text):
        if text[at] == instruction.escape and quote == '"':
            at += 2
        elif text[at] == quote:
            return at
        else:
            at += 1
    raise instruction.fail("a quote is not closed")


def _in_double_quotes(text: str, variables: Mapping[str, str], escape: str) -> str:
    found, at = list[str](), 0
    while at < len(text):
        if text[at] == escape and at + 1 < len(text) and text[at + 1] in f'"${escape}':
            found.append(text[at + 1])
            at += 2
        elif match := VARIABLE.match(text, at):
            found.append(expand(match[0], variables))
            at = match.end()
        else:
            found.append(text[at])
            at += 1
    return "".join(found)


def command_line(instruction: Instruction, shell: Sequence[str]) -> list[str]:
    """What RUN, CMD and ENTRYPOINT start: the words themselves, or the shell with the text."""
    form = instruction.json_form()
    if form is not None:
        return form
    return [*shell, instruction.text]
