"""Every setting, read once from the environment. Nothing else of Sandyard reads the environment."""

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import msgspec

from sandyard.folders import HostFolder, parse_host_folders
from sandyard_api.quotas.limits import GENEROUS, Limits, parse_limits
from sandyard_api.rates.limits import Rates, parse_rates

PREFIX = "SANDYARD_"
SWITCHES = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class InvalidSetting(ValueError):
    """A setting has a value that cannot be used; the message names the variable and what it takes."""


class Settings(msgspec.Struct, frozen=True):
    """What a Sandyard process is told. The variable of a field is `SANDYARD_` and its name in capitals.

    Any variable may end in `_FILE` and then names a file that holds the value, as container secrets do.
    """

    host: Annotated[str, "Address to listen on. Anything but loopback makes Sandyard reachable by others."] = (
        "127.0.0.1"
    )
    port: Annotated[int, "Port of the one public origin; 0 takes a free one."] = 3986
    https_port: Annotated[
        int, "Port of the same origin over https, there once `sandyard trust` was run; 0 takes a free one."
    ] = 0
    ssh_port: Annotated[
        int | None,
        "Port of the SSH gateway; 0 is off. Empty: 2222, or a free one where `port` is 0; the processes `api` and "
        "`proxy` have none then. The `api` process tells clients of it, the `proxy` process listens on it.",
    ] = None
    ssh_host_key: Annotated[
        str | None, "Private key of the SSH gateway, as OpenSSH writes it; empty is one that is made and kept."
    ] = None
    data_dir: Annotated[Path, "Where keys, the SQLite file, sandboxes and bundles are kept."] = (
        Path.home() / ".local" / "share" / "sandyard"
    )
    runtime: Annotated[str, "`auto` (docker when an engine answers, else local), `docker` or `local`."] = "auto"
    isolation: Annotated[str, "For the local runtime: `namespaces`, or `none` for plain processes."] = "namespaces"
    network: Annotated[
        str, "For the local runtime: `auto` (the way out that is there), `none` (loopback only) or `host`."
    ] = "auto"
    local_builds: Annotated[
        bool,
        "For the local runtime: apply the steps of Dockerfiles over this machine's own system, whatever their `FROM` "
        "says, which each build log repeats; otherwise builds and images are refused.",
    ] = False
    database_url: Annotated[
        str | None, "SQLAlchemy URL of the database; empty is an SQLite file in the data directory."
    ] = None
    bus_url: Annotated[str, "`memory://` for one process, `redis://host:port/0` for several."] = "memory://"
    api_key: Annotated[str | None, "The API key; empty is a random one, made at first start and kept."] = None
    internal_token: Annotated[str | None, "What our own parts show each other; empty is a random one that is kept."] = (
        None
    )
    encryption_key: Annotated[
        str | None, "Fernet key for tokens that must be shown again; empty is one that is kept."
    ] = None
    public_url: Annotated[str | None, "Origin to put into every answer; empty follows the Host of each request."] = None
    allowed_hosts: Annotated[
        tuple[str, ...], "Comma-separated host names, beside loopback, under which clients may reach us."
    ] = ()
    trust_forwarded: Annotated[
        bool, "Believe X-Forwarded-Host and -Proto: a proxy that sets them stands before us."
    ] = False
    limits: Annotated[
        Limits,
        "What may be used, such as `cpu=8,memory=16,disk=100,sandbox_cpu=4,sandbox_memory=8,sandbox_disk=20`, "
        "also `snapshots` and `volumes`; empty is far beyond one machine.",
    ] = GENEROUS
    rate_limits: Annotated[
        Rates | None,
        "How often each key may ask, REQUESTS/SECONDS by bucket, such as `authenticated=300/60,sandbox-create=10/60`, "
        "also `sandbox-lifecycle`, `failed-auth` and `anonymous`; empty is as often as it likes.",
    ] = None
    warm_pool: Annotated[
        int, "Started sandboxes of the default snapshot that wait, so that creating one takes milliseconds; 0 for none."
    ] = 0
    preview_warning: Annotated[
        bool, "Show browsers a page that warns of foreign content before a preview, once a day."
    ] = False
    runner_id: Annotated[str, "Name of this runner in the database; stays the same over restarts."] = "local"
    storage_gib: Annotated[int, "How much the embedded object storage for build contexts may hold, GiB."] = 10
    context_hours: Annotated[
        int,
        "How long a build context is kept there that no snapshot and no sandbox refers to, hours; likewise a pushed "
        "image.",
    ] = 24
    registry_gib: Annotated[
        int, "How much the embedded registry may hold, which `daytona snapshot push` pushes to, GiB."
    ] = 20
    s3_endpoint: Annotated[
        str | None,
        "Another object storage for build contexts, `https://host[:port]`, instead of the embedded one; clients upload "
        "to it themselves.",
    ] = None
    s3_bucket: Annotated[str | None, "Its bucket, which must exist."] = None
    s3_region: Annotated[str, "Its region."] = "us-east-1"
    s3_access_key: Annotated[str | None, "Its access key; without a role, clients are given it."] = None
    s3_secret_key: Annotated[str | None, "The secret of that key."] = None
    s3_session_token: Annotated[str | None, "The session token of that key, where it has one."] = None
    s3_role_arn: Annotated[
        str | None, "Role to assume for each client, limited to its organization's objects and an hour; empty: none."
    ] = None
    s3_sts_endpoint: Annotated[
        str | None, "Where roles are assumed, such as `https://sts.eu-west-1.amazonaws.com`; empty: `s3_endpoint`."
    ] = None
    doors_dir: Annotated[
        Path | None, "The sandboxes' doors, a directory that runner and proxy share; empty: in the data directory."
    ] = None
    host_folders: Annotated[
        tuple[HostFolder, ...],
        "Comma-separated absolute paths, each with `:ro` behind it where wanted: folders of this machine that "
        "sandboxes may mount as `host:/path`; empty: none.",
    ] = ()
    default_image: Annotated[
        str | None, "Image of the default snapshot for the docker runtime; empty builds our own."
    ] = None
    debian_mirror: Annotated[
        str | None, "Debian mirror for building that image where Debian's servers cannot be reached directly."
    ] = None
    name_servers: Annotated[
        tuple[str, ...],
        "Comma-separated name servers, `address` or `address:port`, for sandboxes with domain lists or secrets; empty: "
        "this machine's.",
    ] = ()
    oci_runtime: Annotated[str | None, "Another OCI runtime of the engine for sandboxes, such as `runsc`."] = None
    internal_listen: Annotated[str, "Where the `api` process serves the internal routes."] = "127.0.0.1:3987"
    internal_url: Annotated[str, "Where `runner` and `proxy` find the internal routes."] = "http://127.0.0.1:3987"
    runner_listen: Annotated[str, "Where the `runner` process serves log leases and forwarding."] = "127.0.0.1:3988"
    runner_url: Annotated[str, "Where proxies find this runner."] = "http://127.0.0.1:3988"
    control_plane_url: Annotated[str, "Where the `proxy` process finds the API."] = "http://127.0.0.1:3985"
    seed: Annotated[
        int | None, "For tests: identifiers in the same order for the same number. Needs an empty database at start."
    ] = None
    journal: Annotated[bool, "For tests: keep what was asked and answered, for `sandyard journal`."] = False
    log_level: Annotated[str, "`debug`, `info`, `warning` or `error`."] = "info"

    def resolved_database_url(self) -> str:
        """The URL to open, with the default filled in."""
        return self.database_url or f"sqlite+aiosqlite:///{self.data_dir / 'sandyard.db'}"

    def resolved_ssh_port(self) -> int | None:
        """Where a whole Sandyard listens for SSH, 0 for a free port; `None` is off."""
        if self.ssh_port is None:
            return 2222 if self.port else 0
        return self.ssh_port or None

    def resolved_doors_dir(self) -> Path:
        """The directory of doors, with the default filled in."""
        return self.doors_dir or self.data_dir / "doors"


PARSERS: Mapping[object, Callable[[str], object]] = {
    Limits: parse_limits,
    Rates | None: parse_rates,
    tuple[HostFolder, ...]: parse_host_folders,
}
"""Of types with a language of their own; they raise `ValueError`."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    "runtime": ("auto", "docker", "local"),
    "isolation": ("namespaces", "none"),
    "network": ("auto", "none", "host"),
    "log_level": ("debug", "info", "warning", "error"),
}


def read_settings(environment: Mapping[str, str] | None = None, **overrides: object) -> Settings:
    """The settings of this process: defaults, then the environment, then what the command line said.

    An override of `None` says nothing. Raises `InvalidSetting`.
    """
    environment = os.environ if environment is None else environment
    hints = get_type_hints(Settings)
    values: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        text = _read(environment, PREFIX + name.upper())
        if text:
            values[name] = _parse(name, hints[name], text)
    values |= {name: value for name, value in overrides.items() if value is not None}
    for name, allowed in CHOICES.items():
        if name in values and values[name] not in allowed:
            raise InvalidSetting(f"{PREFIX}{name.upper()} is {values[name]!r}; it takes {', '.join(allowed)}")
    if values.get("warm_pool", 0) < 0:
        raise InvalidSetting(f"{PREFIX}WARM_POOL is {values['warm_pool']}; it takes a number that is not negative")
    settings = Settings(**values)
    check_storage(settings)
    return settings


def check_storage(settings: Settings) -> None:
    """Raise `InvalidSetting` for bounds that cannot be and for an external object storage that lacks something."""
    for name in ("storage_gib", "context_hours", "registry_gib"):
        if getattr(settings, name) < 1:
            raise InvalidSetting(f"{PREFIX}{name.upper()} is {getattr(settings, name)}; it takes a number from 1")
    for name in ("s3_endpoint", "s3_sts_endpoint"):
        value = getattr(settings, name)
        if value and not re.fullmatch(r"https?://[^/\s?#]+/?", value):
            raise InvalidSetting(f"{PREFIX}{name.upper()} is {value!r}; it takes https://host or http://host:port")
    needed = [settings.s3_bucket, settings.s3_access_key, settings.s3_secret_key]
    if settings.s3_endpoint and not all(needed):
        raise InvalidSetting(f"{PREFIX}S3_ENDPOINT needs S3_BUCKET, S3_ACCESS_KEY and S3_SECRET_KEY as well")


def _read(environment: Mapping[str, str], variable: str) -> str:
    if path := environment.get(f"{variable}_FILE"):
        try:
            return Path(path).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise InvalidSetting(f"{variable}_FILE names {path}, which cannot be read: {error.strerror}") from error
    return environment.get(variable, "")


def _parse(name: str, kind: object, text: str) -> object:
    if kind in (int, int | None):
        try:
            return int(text)
        except ValueError:
            raise InvalidSetting(f"{PREFIX}{name.upper()} is {text!r}; it takes a whole number") from None
    if kind is bool:
        if text.lower() not in SWITCHES:
            raise InvalidSetting(f"{PREFIX}{name.upper()} is {text!r}; it takes true or false")
        return SWITCHES[text.lower()]
    if (parse := PARSERS.get(kind)) is not None:
        try:
            return parse(text)
        except ValueError as error:
            raise InvalidSetting(f"{PREFIX}{name.upper()}: {error}") from None
    if kind in (Path, Path | None):
        return Path(text).expanduser()
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text
