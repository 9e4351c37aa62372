"""The certificate authority of the proxy that puts secrets into https requests. It is trusted in sandboxes only."""

import ipaddress
import re
import ssl
import tempfile
from collections import OrderedDict
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from sandyard.certificates import new_authority, new_server_certificate, write_private

LEAF_LIFETIME = timedelta(days=30)
MAX_CONTEXTS = 256
CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


class EgressAuthority:
    """Makes certificates for hosts that secrets may be sent to. Its key stays in `folder`, readable to us only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._contexts: OrderedDict[tuple[str, bool], ssl.SSLContext] = OrderedDict()

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

    def context(self, host: str, *, http2: bool = False) -> ssl.SSLContext:
        """For a server that poses as `host`, with HTTP/2 or without. Blocks for a moment the first time."""
        key = host, http2
        if key in self._contexts:
            self._contexts.move_to_end(key)
            return self._contexts[key]
        context = self._contexts[key] = self._issue(host)
        context.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
        while len(self._contexts) > MAX_CONTEXTS:
            self._contexts.popitem(last=False)
        return context

    def _make(self, path: Path) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Sandyard egress")])
        certificate, key = new_authority(name)
        write_private(self._folder / "egress-ca.key", key)
        write_private(path, certificate)

    def _issue(self, host: str) -> ssl.SSLContext:
        certificate, key = new_server_certificate(
            self.certificate.encode(),
            (self._folder / "egress-ca.key").read_bytes(),
            host,
            [_alternative(host)],
            LEAF_LIFETIME,
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.NamedTemporaryFile() as file:  # the ssl module reads keys from files only
            file.write(key + certificate)
            file.flush()
            context.load_cert_chain(file.name)
        return context


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
