"""What a caller expects, by its SDK's name and version: one rule each, none of them elsewhere.

*Source:* contract/sdk-wire.md 4.4, contract/toolbox-daemon.md 7.4 and 8.1, contract/README.md 22, 23, 27.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

VERSION_HEADER = "X-Daytona-SDK-Version"
SOURCE_HEADER = "X-Daytona-Source"
SPLIT_HEADER = "X-Daytona-Split-Output"
SUBPROTOCOL_PREFIX = "X-Daytona-SDK-Version~"

GO_SOURCES = ("sdk-go", "go-sdk")
"""What the Go SDK calls itself: since 0.159, and before."""

Release = tuple[int, int, int]

_NEWEST: Release = (1 << 30, 0, 0)
_LEADING_NUMBERS = re.compile(r"v?(\d{1,9})\.(\d{1,9})(?:\.(\d{1,9}))?(?![\d.])", re.IGNORECASE)


class LogFormat(Enum):
    """The forms a log over HTTP has."""

    JSON = "json"
    """`{"output", "stdout", "stderr"}`, no markers anywhere."""
    PLAIN = "plain"
    """Text, both streams in order of arrival, no markers."""
    MARKED = "marked"
    """Text with markers; the client splits it."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. Every rule that depends on it is a property here."""

    release: Release | None = None
    """`None` without a version or with an unreadable one. A pre-release counts as its release, `dev` as newest."""
    has_version: bool = False
    source: str = ""
    """`sdk-python`, `sdk-go` ...; empty when not told."""
    split_output: bool = False
    accepts_json: bool = False
    user_agent: str = ""

    @classmethod
    def of(cls, header: Callable[[str], str | None], subprotocols: Iterable[str] = ()) -> "Caller":
        """Read a request. `header` gives a header's value by name; `subprotocols` are those a WebSocket offers."""
        version = header(VERSION_HEADER) or version_of_subprotocols(subprotocols)
        return cls(
            release=parse_release(version) if version else None,
            has_version=bool(version),
            source=(header(SOURCE_HEADER) or "").strip().lower(),
            split_output=(header(SPLIT_HEADER) or "").strip().lower() == "true",
            accepts_json="application/json" in (header("Accept") or "").lower(),
            user_agent=header("User-Agent") or "",
        )

    @property
    def is_go(self) -> bool:
        """Whether it is the Go SDK."""
        return self.source in GO_SOURCES

    @property
    def log_format(self) -> LogFormat:
        """Of a command's log over HTTP without `follow`."""
        if not self.has_version:
            return self._format_without_version
        if self.release is not None and self.release < (0, 27, 0):
            return LogFormat.PLAIN
        if self.release is None or self.release < (0, 167, 0):
            return LogFormat.MARKED
        return LogFormat.JSON

    @property
    def entrypoint_log_format(self) -> LogFormat:
        """Of the entrypoint's log, which the SDKs read as JSON a little earlier, and never without markers before."""
        if not self.has_version:
            return self._format_without_version
        return LogFormat.JSON if self.release is not None and self.release >= (0, 161, 0) else LogFormat.MARKED

    @property
    def follow_has_markers(self) -> bool:
        """Whether log messages of a WebSocket carry markers: for everybody but the oldest releases."""
        return self.release is None or self.release >= (0, 27, 0)

    @property
    def follow_wants_lone_marker(self) -> bool:
        """Whether a quiet message must be followed by its marker alone: OkHttp's client shows it only then."""
        return not self.has_version and self.user_agent.lower().startswith("okhttp/")

    @property
    def follow_wants_closing_marker(self) -> bool:
        """Whether a message must end with its marker: Go's client keeps the last two bytes until it sees more."""
        return self.is_go

    @property
    def exec_output_has_markers(self) -> bool:
        """Whether `output` of a synchronous exec is marked text."""
        return self.log_format is LogFormat.MARKED

    @property
    def exec_has_streams(self) -> bool:
        """Whether a synchronous exec answers `stdout` and `stderr` beside `output`.

        The Go models had both keys from the first release on, and its programs read them.
        """
        if not self.has_version or self.is_go:
            return True
        return self.release is not None and self.release >= (0, 167, 0)

    @property
    def session_starts_at_home(self) -> bool:
        """Whether a session begins in the home directory instead of the work directory."""
        return self.release is not None and self.release < (0, 103, 0)

    @property
    def decodes_strictly(self) -> bool:
        """Whether an unknown key in an answer is an error to this caller."""
        return self.is_go and self.release is not None and self.release < (0, 188, 0)

    @property
    def needs_early_bytes(self) -> bool:
        """Whether a long silence before an answer must be broken: OkHttp gives up after 10 s without a byte."""
        return self.source == "sdk-java" or self.user_agent.lower().startswith("okhttp/")

    @property
    def _format_without_version(self) -> LogFormat:
        if self.split_output:
            return LogFormat.MARKED
        return LogFormat.JSON if self.accepts_json else LogFormat.PLAIN


def parse_release(text: str) -> Release | None:
    """`v0.27.0a1` → `(0, 27, 0)`; `None` when it is no version. What contains `dev` is the newest."""
    if "dev" in text.lower():
        return _NEWEST
    match = _LEADING_NUMBERS.match(text.strip())
    if match is None:
        return None
    major, minor, patch = match.groups()
    return int(major), int(minor), int(patch or 0)


def version_of_subprotocols(offered: Iterable[str]) -> str | None:
    """The version inside an offered `X-Daytona-SDK-Version~<version>`: browsers can send no header."""
    for token in offered:
        name = token.strip()
        if name.lower().startswith(SUBPROTOCOL_PREFIX.lower()):
            return name[len(SUBPROTOCOL_PREFIX) :]
    return None
