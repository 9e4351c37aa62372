"""A certificate authority of this installation, for https on this machine's own names only, and its certificates."""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = timedelta(days=3650)
CERTIFICATE_LIFETIME = timedelta(days=397)
"""Longer ones are refused by some clients."""
LEEWAY = timedelta(days=1)
LOOPBACK_NETWORKS = ("127.0.0.0/8", "::1/128")
LOOPBACK_NAMES = ("localhost",)


@dataclass(frozen=True, slots=True)
class Authority:
    """Where an installation keeps its authority."""

    folder: Path

    @property
    def certificate(self) -> Path:
        """What other programs are to trust."""
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        """What signs; readable to its owner only."""
        return self.folder / "ca.key"

    @property
    def exists(self) -> bool:
        """Whether it was made."""
        return self.certificate.exists() and self.key.exists()


def authority_of(data_dir: Path) -> Authority:
    """The authority of a data directory, made or not."""
    return Authority(data_dir / "trust")


def make_authority(authority: Authority, *, installation: str, extra_names: Sequence[str] = ()) -> None:
    """Make the authority unless it is there. It can vouch for loopback and `extra_names`, and for nobody else.

    That limit is in the certificate (RFC 5280, name constraints): whoever steals the key cannot pose as other sites.
    """
    if authority.exists:
        return
    authority.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Sandyard"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Sandyard of this machine {installation[:8]}"),
        ]
    )
    networks = [x509.IPAddress(ipaddress.ip_network(network)) for network in LOOPBACK_NETWORKS]
    permitted = [*networks, *(x509.DNSName(text) for text in LOOPBACK_NAMES), *_names(extra_names, as_networks=True)]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LEEWAY)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.NameConstraints(permitted, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(authority.key, _pem_of(key))
    _write(authority.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    authority.certificate.chmod(0o644)


def issue_certificate(authority: Authority, *, extra_names: Sequence[str] = ()) -> tuple[Path, Path]:
    """A new server certificate for loopback and `extra_names`; files of the certificate and of its key."""
    signer = serialization.load_pem_private_key(authority.key.read_bytes(), None)
    issuer = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    addresses = [x509.IPAddress(ipaddress.ip_address(text)) for text in ("127.0.0.1", "::1")]
    # No `*.localhost`: rustls, in the SDK all this is for, refuses it below a name constraint.
    names = [*addresses, x509.DNSName("localhost"), *_names(extra_names)]
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sandyard")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LEEWAY)
        .not_valid_after(now + CERTIFICATE_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)  # type: ignore[arg-type]  # an EC key, as we made it
        .sign(signer, hashes.SHA256())  # type: ignore[arg-type]  # the same
    )
    paths = (authority.folder / "server.crt", authority.folder / "server.key")
    _write(paths[0], certificate.public_bytes(serialization.Encoding.PEM))
    _write(paths[1], _pem_of(key))
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


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)
