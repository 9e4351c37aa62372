"""This machine's store of trusted certificates: what adds ours to it and what takes it out again."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

SECONDS = 120
MAC_KEYCHAIN = "/Library/Keychains/System.keychain"


class CannotTrust(RuntimeError):
    """The store cannot be changed; the message says what to do instead."""


class Store(msgspec.Struct, frozen=True):
    """A kind of store: a folder for certificates, and the command that takes them in."""

    folder: Path
    command: tuple[str, ...]


STORES = (
    Store(Path("/usr/local/share/ca-certificates"), ("update-ca-certificates",)),  # Debian, Ubuntu, Alpine
    Store(Path("/etc/pki/ca-trust/source/anchors"), ("update-ca-trust", "extract")),  # Fedora, RHEL
    Store(Path("/etc/ca-certificates/trust-source/anchors"), ("trust", "extract-compat")),  # Arch
)


def steps(certificate: Path, name: str, *, undo: bool, stores: Sequence[Store] = STORES) -> list[list[str]]:
    """The commands that add a certificate to this machine's store, or take it out. Raises `CannotTrust`."""
    if sys.platform == "darwin":
        verb = (
            ["remove-trusted-cert", "-d"] if undo else ["add-trusted-cert", "-d", "-r", "trustRoot", "-k", MAC_KEYCHAIN]
        )
        return [["security", *verb, str(certificate)]]
    for store in stores:
        if shutil.which(store.command[0]) is not None:
            target = store.folder / f"{name}.crt"
            if undo:
                # Debian's command leaves the link that it made to a certificate which is gone.
                return [["rm", "-f", str(target), f"/etc/ssl/certs/{name}.pem"], list(store.command)]
            return [["install", "-D", "-m", "644", str(certificate), str(target)], list(store.command)]
    raise CannotTrust(
        "this machine has none of update-ca-certificates, update-ca-trust and trust: "
        f"install the package ca-certificates, or add {certificate} to its trusted certificates by hand"
    )


def run_steps(commands: Sequence[Sequence[str]]) -> None:
    """Run them in order. Raises `CannotTrust` with what to run as root where we may not."""
    for command in commands:
        try:
            done = subprocess.run(  # noqa: S603  our own commands
                command, capture_output=True, text=True, timeout=SECONDS, check=False, stdin=subprocess.DEVNULL
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CannotTrust(f"cannot run {command[0]}: {error}") from error
        if done.returncode != 0:
            lines = "\n".join("  sudo " + " ".join(each) for each in commands)
            said = (done.stderr or done.stdout).strip()[-500:]
            raise CannotTrust(f"{' '.join(command)} failed: {said}\nRun as root:\n{lines}")
