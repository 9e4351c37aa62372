"""A certificate authority of this installation, for https on this machine's own names only, and its certificates."""

import ipaddress
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from sandyard.authority import Authority
from sandyard.certificates import new_authority, new_server_certificate, write_private

CERTIFICATE_LIFETIME = timedelta(days=397)
"""Longer ones are refused by some clients."""
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")
LOOPBACK_NAMES = ("localhost",)


def make_authority(authority: Authority, *, installation: str, extra_names: Sequence[str] = ()) -> None:
    """Make the authority unless it is there. It can vouch for loopback and `extra_names`, and for nobody else.

    That limit is in the certificate (RFC 5280, name constraints): whoever steals the key cannot pose as other sites.
    """
    if authority.exists:
        return
    authority.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sandyard"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Sandyard of this machine {installation[:8]}"),
        ]
    )
    networks = [x509.IPAddress(ipaddress.ip_network(network)) for network in LOOPBACK_NETWORKS]
    permitted = [*networks, *(x509.DNSName(text) for text in LOOPBACK_NAMES), *_names(extra_names, as_networks=True)]
    certificate, key = new_authority(name, permitted=permitted)
    write_private(authority.key, key)
    write_private(authority.certificate, certificate)
    authority.certificate.chmod(0o644)


def issue_certificate(authority: Authority, *, extra_names: Sequence[str] = ()) -> tuple[Path, Path]:
    """A new server certificate for loopback and `extra_names`; files of the certificate and of its key."""
    addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    # No `*.localhost`: rustls, in the SDK all this is for, refuses it below a name constraint.
    names = [*addresses, x509.DNSName("localhost"), *_names(extra_names)]
    certificate, key = new_server_certificate(
        authority.certificate.read_bytes(), authority.key.read_bytes(), "Sandyard", names, CERTIFICATE_LIFETIME
    )
    paths = (authority.folder / "server.crt", authority.folder / "server.key")
    write_private(paths[0], certificate)
    write_private(paths[1], key)
    return paths


def _names(texts: Sequence[str], *, as_networks: bool = False) -> list[x509.GeneralName]:
    """Host names and addresses; patterns with a star beyond the first label are left to http."""
    found: list[x509.GeneralName] = []
    for text in texts:
        try:
            address = ipaddress.ip_address(text.strip("[]"))
        except ValueError:
            if text and text != "*":
                found.append(x509.DNSName(text.removeprefix("*.") if as_networks else text))
        else:
            found.append(x509.IPAddress(ipaddress.ip_network(address) if as_networks else address))
    return found
