"""The SSH gateway's host key: made once, and checked before anything is served with it."""

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from sandyard.settings import InvalidSetting


def new_host_key() -> str:
    """An ed25519 private key as OpenSSH writes it."""
    key = Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode("ascii").strip()


def check_host_key(text: str) -> None:
    """Raise `InvalidSetting` for what is no private key that can be used without asking anybody."""
    try:
        load_ssh_private_key(text.encode() + b"\n", password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidSetting(
            "SANDYARD_SSH_HOST_KEY must be a private key as `ssh-keygen -t ed25519 -N ''` makes it"
        ) from error
