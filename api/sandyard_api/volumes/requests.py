"""What requests may say of volumes: read, checked, and made into plain values. *Source:* control-plane.md 12."""

from collections.abc import Sequence

import msgspec

from sandyard.folders import SCHEME
from sandyard_api.errors import BadRequest
from sandyard_api.validation import Fields

SYSTEM_DIRECTORIES = ("/proc", "/sys", "/dev", "/boot", "/etc", "/bin", "/sbin", "/lib", "/lib64")
OURS = ("/opt/sandyard", "/run/sandyard")
"""The daemon and its door; a mount there, or over them, would end the sandbox."""
MAX_MOUNTS = 100
MAX_PATH_BYTES = 4000
MAX_PART_BYTES = 255


class WantedMount(msgspec.Struct, frozen=True):
    """One entry of `volumes` of a create request."""

    volume: str
    """Id or name, or `host:/path`."""
    path: str
    subpath: str

    def shown(self, volume_id: str) -> dict[str, str]:
        """As it is kept and as clients see it, with the volume's id instead of its name."""
        entry = {"volumeId": volume_id, "mountPath": self.path}
        return entry | {"subpath": self.subpath} if self.subpath else entry


def read_new_volume(body: object) -> str:
    """The name in the body of a create request. Raises `BadRequest`."""
    fields = Fields(body)
    name = fields.name("name")
    if fields.raw("name") is None:
        fields.complain("name must be a string")
    elif name == "":
        fields.complain("name should not be empty")
    elif name is not None and name.startswith(SCHEME):
        fields.complain(f"name must not begin with {SCHEME}, which names folders of the host")
    fields.check()
    return name or ""


def read_mounts(fields: Fields) -> tuple[WantedMount, ...]:
    """`volumes` of a create request; complains of wrong types to `fields`. Paths are checked by `check_mounts`."""
    listed = fields.raw("volumes")
    if listed is None:
        return ()
    if not isinstance(listed, list):
        fields.complain("volumes must be an array")
        return ()
    if len(listed) > MAX_MOUNTS:
        fields.complain(f"volumes must contain no more than {MAX_MOUNTS} elements")
        return ()
    return tuple(mount for number, item in enumerate(listed) if (mount := _mount(fields, number, item)) is not None)


def _mount(fields: Fields, number: int, item: object) -> WantedMount | None:
    where = f"volumes.{number}"
    if not isinstance(item, dict):
        fields.complain(f"{where} must be an object")
        return None
    # The names are in the complaints, so they are part of the keys.
    inner = Fields({f"{where}.{key}": item.get(key) for key in ("volumeId", "mountPath", "subpath")})
    texts = {key: inner.string(f"{where}.{key}") for key in ("volumeId", "mountPath", "subpath")}
    for key in ("volumeId", "mountPath"):
        if item.get(key) is None:
            inner.complain(f"{where}.{key} must be a string")
    if texts["volumeId"] == "":
        inner.complain(f"{where}.volumeId should not be empty")
    for complaint in inner.complaints:
        fields.complain(complaint)
    return WantedMount(texts["volumeId"] or "", texts["mountPath"] or "", texts["subpath"] or "")


def check_mounts(mounts: Sequence[WantedMount]) -> None:
    """Raise `BadRequest` for paths that cannot be mounted to, or that two share."""
    seen: set[str] = set()
    for mount in mounts:
        if reason := _path_problem(mount.path):
            raise BadRequest(f"Invalid mount path {mount.path} ({reason})")
        if reason := _subpath_problem(mount.subpath):
            raise BadRequest(f"Invalid subpath {mount.subpath} ({reason})")
        if mount.path.rstrip("/") in seen:
            raise BadRequest(f"Invalid mount path {mount.path} (already used by another volume)")
        seen.add(mount.path.rstrip("/"))


def _path_problem(path: str) -> str | None:
    if not path.startswith("/"):
        return "must be absolute"
    if not path.strip("/"):
        return "cannot mount to the root directory"
    if "." in path.split("/") or ".." in path.split("/"):
        return "cannot contain relative path components"
    if "//" in path:
        return "cannot contain consecutive slashes"
    plain = path.rstrip("/")
    if any(plain == taken or plain.startswith(f"{taken}/") for taken in SYSTEM_DIRECTORIES + OURS):
        return "cannot mount to system directory"
    if any(ours.startswith(f"{plain}/") for ours in OURS):
        return "cannot mount to system directory"
    return _length_problem(path)


def _subpath_problem(subpath: str) -> str | None:
    if subpath.startswith("/"):
        return "must be relative"
    if ".." in subpath.split("/"):
        return "cannot contain relative path components"
    if "//" in subpath:
        return "cannot contain consecutive slashes"
    return _length_problem(subpath)


def _length_problem(path: str) -> str | None:
    if len(path.encode()) > MAX_PATH_BYTES or any(len(part.encode()) > MAX_PART_BYTES for part in path.split("/")):
        return "too long"
    return None
