"""The certificate authority of the proxy that puts secrets into https requests. It is trusted in sandboxes only."""

import ipaddress
import os
import re
import ssl
import tempfile
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = timedelta(days=3650)
LEAF_LIFETIME = timedelta(days=30)
LEEWAY = timedelta(days=1)
MAX_CONTEXTS = 256
MAX_COMMON_NAME = 64
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class EgressAuthority:
    """Makes certificates for hosts that secrets may be sent to. Its key stays in `folder`, readable to us only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contexts: OrderedDict[str, ssl.SSLContext] = OrderedDict()

    @property
    def certificate(self) -> str:
        """As PEM; made at the first call."""
        path = self._folder / "egress-ca.crt"
        if not path.exists():
            self._make(path)
        return path.read_text()

    def bundle(self) -> str:
        """What a sandbox trusts: this machine's authorities and ours, as PEM."""
        cafile = ssl.get_default_verify_paths().cafile
        machine = Path(cafile).read_text(encoding="utf-8", errors="replace") if cafile else ""
        return "\n".join([*CERTIFICATE.findall(machine), self.certificate])  # and no key that may be beside them

    def context(self, host: str) -> ssl.SSLContext:
        """For a server that poses as `host`. Blocks for a moment at its first call for a host."""
        if host in self._contexts:
            self._contexts.move_to_end(host)
            return self._contexts[host]
        context = self._contexts[host] = self._issue(host)
        while len(self._contexts) > MAX_CONTEXTS:
            self._contexts.popitem(last=False)
        return context

    def _make(self, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sandyard egress")])
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - LEEWAY)
            .not_valid_after(now + LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(is_authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        _write(self._folder / "egress-ca.key", _pem_of(key))
        _write(path, certificate.public_bytes(serialization.Encoding.PEM))

    def _issue(self, host: str) -> ssl.SSLContext:
        issuer = x509.load_pem_x509_certificate(self.certificate.encode())
        signer = serialization.load_pem_private_key((self._folder / "egress-ca.key").read_bytes(), None)
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:MAX_COMMON_NAME])]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - LEEWAY)
            .not_valid_after(now + LEAF_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(is_authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_alternative(host)]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), critical=False)  # type: ignore[arg-type]  # an EC key, as we made it
            .sign(signer, hashes.SHA256())  # type: ignore[arg-type]  # the same
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_alpn_protocols(["http/1.1"])
        with tempfile.NamedTemporaryFile() as file:  # the ssl module reads keys from files only
            file.write(_pem_of(key) + certificate.public_bytes(serialization.Encoding.PEM))
            file.flush()
            context.load_cert_chain(file.name)
        return context


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
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
