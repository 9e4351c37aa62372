"""Why an operation of the protocol is not answered: one reason for each family of paths, for pages and error bodies."""

import re
from enum import StrEnum
from typing import NamedTuple


class Status(StrEnum):
    """What becomes of an operation."""

    IMPLEMENTED = "implemented"
    FIXTURE = "fixture"
    """Answered, by what can never be otherwise here."""
    REFUSED = "501"
    """Part of the protocol that this version does not have."""
    NOT_APPLICABLE = "not applicable"
    """Between parts of the original that we have not, or about what there cannot be here; answers 501, too."""


class Absence(NamedTuple):
    """Why the operations of some paths are not there."""

    paths: re.Pattern[str]
    status: Status
    reason: str


FIXTURES = frozenset({"listAvailableSandboxClasses", "isPreviewWarningEnabled", "hasSandboxAccess"})
"""Operations whose answer is the same for everybody."""

_ONE_ORGANIZATION = "there is one organization with one user; tests get others by `POST /_sandyard/organizations`"
_ONE_REGION = "this machine is the one region"
_OWN_PROTOCOL = "it is spoken between parts of the original; ours speak `/internal`"
_NO_VALUES = "it gives runners the values of secrets; ours get them by `/internal`, and no key reads one"
_KEYS_ONLY = "there is no identity provider: API keys are the only way in"
_RUNNERS = "a runner registers itself with its first heartbeat; `GET /_sandyard/capabilities` lists them"
_NO_ADMIN = "there is no administrator beside the owner: settings and the command line do this"


def _absence(paths: str, status: Status, reason: str) -> Absence:
    return Absence(re.compile(paths), status, reason)


ABSENCES: tuple[Absence, ...] = (
    _absence(r"/admin(/.*)?", Status.NOT_APPLICABLE, _NO_ADMIN),
    _absence(r"/jobs(/.*)?", Status.NOT_APPLICABLE, _OWN_PROTOCOL),
    _absence(r"/runners/(healthcheck|me|me/.*|by-.*|\{id\}/full)", Status.NOT_APPLICABLE, _OWN_PROTOCOL),
    _absence(
        r"/runners(/.*)?",
        Status.REFUSED,
        _RUNNERS,
    ),
    _absence(r"/sandbox/(for-runner|\{sandboxId\}/state)", Status.NOT_APPLICABLE, _OWN_PROTOCOL),
    _absence(r"/sandbox/\{sandboxId\}/secrets", Status.NOT_APPLICABLE, _NO_VALUES),
    _absence(r"/organizations/.*/(identity-providers|sso-enabled)(/.*)?", Status.NOT_APPLICABLE, _KEYS_ONLY),
    _absence(r"/users/.*", Status.NOT_APPLICABLE, _KEYS_ONLY),
    _absence(r"/organizations/.*otel-config.*", Status.REFUSED, "telemetry of a sandbox is set by its environment"),
    _absence(r"/organizations/.*quota.*", Status.REFUSED, "limits are a setting, SANDYARD_LIMITS"),
    _absence(r"/organizations/.*preview-warning", Status.REFUSED, "it is a setting, SANDYARD_PREVIEW_WARNING"),
    _absence(r"/organizations/.*default-region", Status.REFUSED, _ONE_REGION),
    _absence(r"/organizations(/.*)?", Status.REFUSED, _ONE_ORGANIZATION),
    _absence(r"/regions(/.*)?", Status.REFUSED, _ONE_REGION),
    _absence(r"/audit/.*", Status.REFUSED, "requests are in the journal, `GET /_sandyard/journal`"),
    _absence(r"/webhooks/.*", Status.REFUSED, "events come over Socket.IO; nothing is called back"),
    _absence(r".*/telemetry/.*", Status.REFUSED, "logs and traces are not kept: sandboxes send them to a collector"),
    _absence(r"/computeruse/.*", Status.REFUSED, "the desktop is not built"),
)
"""The first that matches a path says why."""


def absence_of(path: str) -> Absence | None:
    """Why the operations of a path template are not there; `None` for one that has no reason."""
    return next((each for each in ABSENCES if each.paths.fullmatch(path)), None)
