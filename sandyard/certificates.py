"""Certificate authorities with EC keys, and the server certificates that they sign, as PEM.

*Source:* RFC 5280.
"""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFETIME = timedelta(days=3650)
LEEWAY = timedelta(days=1)
"""Clocks of sandboxes and machines differ."""
MAX_COMMON_NAME = 64


def new_authority(name: x509.Name, *, permitted: Sequence[x509.GeneralName] = ()) -> tuple[bytes, bytes]:
    """An authority's certificate and key. It can vouch for what is `permitted` only, where anything is said there."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(name, name, key, AUTHORITY_LIFETIME, signs_certificates=True)
    if permitted:
        builder = builder.add_extension(x509.NameConstraints(permitted, None), critical=True)
    subject_key = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = builder.add_extension(subject_key, critical=False).sign(key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM), _pem_of(key)


def new_server_certificate(
    authority: bytes, authority_key: bytes, common_name: str, names: Sequence[x509.GeneralName], lifetime: timedelta
) -> tuple[bytes, bytes]:
    """A certificate for a server of these names, and its key. `ValueError` for an authority that is unreadable."""
    issuer = x509.load_pem_x509_certificate(authority)
    signer = serialization.load_pem_private_key(authority_key, None)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:MAX_COMMON_NAME])])
    certificate = (
        _builder(subject, issuer.subject, key, lifetime, signs_certificates=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)  # type: ignore[arg-type]  # an EC key, as we made it
        .sign(signer, hashes.SHA256())  # type: ignore[arg-type]  # the same
    )
    return certificate.public_bytes(serialization.Encoding.PEM), _pem_of(key)


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step; it is readable to its owner only."""
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    temporary.replace(path)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    lifetime: timedelta,
    *,
    signs_certificates: bool,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
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
    constraints = x509.BasicConstraints(ca=signs_certificates, path_length=0 if signs_certificates else None)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - LEEWAY)
        .not_valid_after(now + lifetime)
        .add_extension(constraints, critical=True)
        .add_extension(usage, critical=True)
    )


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
