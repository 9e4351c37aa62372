"""What requests about secrets may say."""

import re

import msgspec

from sandyard_api.errors import BadRequest
from sandyard_api.sandboxes.network_requests import DOMAIN
from sandyard_api.validation import Fields

NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_-]{0,127}")
VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,127}")
MAX_VALUE_BYTES = 65_536
MAX_HOSTS = 100
MAX_SECRETS_PER_SANDBOX = 100


class SecretFields(msgspec.Struct, frozen=True):
    """A secret as asked for; `None` says nothing."""

    name: str
    value: str | None
    description: str | None
    hosts: list[str] | None


def read_new_secret(body: object) -> SecretFields:
    """The body of a create request. Raises `BadRequest`."""
    fields = Fields(body)
    name = fields.string("name") or ""
    if not NAME.fullmatch(name):
        fields.complain("name must match ^[a-zA-Z_][a-zA-Z0-9_-]*$ and have at most 128 characters")
    if fields.raw("value") in (None, ""):
        fields.complain("value should not be empty")
    return _read(fields, name)


def read_secret_changes(body: object) -> SecretFields:
    """The body of an update. Raises `BadRequest`."""
    fields = Fields(body)
    if fields.raw("value") == "":
        fields.complain("value should not be empty")
    return _read(fields, "")


def read_mounts(fields: Fields) -> dict[str, str]:
    """`secrets` of a sandbox as name of the variable to name of the secret. What is wrong goes to `fields`."""
    mounts: dict[str, str] = {}
    for item in fields.list("secrets"):
        if not isinstance(item, dict) or not all(isinstance(value, str) for value in item.values()):
            fields.complain("each value in secrets must be an object of names")
            break
        mounts |= item
    for variable in mounts:
        if not VARIABLE.fullmatch(variable):
            fields.complain(f"secrets: {variable[:128]!r} is not the name of an environment variable")
    if len(mounts) > MAX_SECRETS_PER_SANDBOX:
        fields.complain(f"A sandbox cannot have more than {MAX_SECRETS_PER_SANDBOX} secrets")
    return mounts


def _read(fields: Fields, name: str) -> SecretFields:
    value, description = fields.string("value"), fields.string("description")
    if value is not None and (len(value.encode()) > MAX_VALUE_BYTES or "\n" in value or "\r" in value):
        fields.complain(f"value must be one line of at most {MAX_VALUE_BYTES} bytes: it goes into requests")
    hosts = None if fields.raw("hosts") is None else [_host(item) for item in fields.list("hosts")]
    if hosts is not None and len(hosts) > MAX_HOSTS:
        fields.complain(f"hosts must not contain more than {MAX_HOSTS} entries")
    fields.check()
    return SecretFields(name, value, description, hosts)


def _host(item: object) -> str:
    text = item.strip().lower() if isinstance(item, str) else ""
    if not DOMAIN.fullmatch(text) and not re.fullmatch(r"\d{1,3}(\.\d{1,3}){3}", text):
        raise BadRequest(f'Invalid host: "{item}". Must be a host name, or "*." and one; without a port')
    return text
