"""Telemetry over TLS: to whom the sandbox's certificates vouch for, and to nobody else."""

import ipaddress
import subprocess
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from sandyard.certificates import new_authority, new_server_certificate
from sandyard_daemon.telemetry import tls
from tests.daemon.conftest import Daemon, Starter, eventually
from tests.daemon.test_footprint import private_dirty_kib
from tests.otlp import RecordingCollector, running_collector

Wrong = Callable[["Authority", Path], tuple[Path, str]]
"""A server's certificate that must not be accepted, and what is said of it."""

LOOPBACK = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
MORE_KIB = 3_000
"""What TLS may add to a daemon that trusts one authority: it is 1,900, and 850 more with the 144 of Debian."""


class Authority:
    """Signs certificates of servers."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} of this test")])
        self._certificate, self._key = new_authority(subject)
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(self._certificate)

    def server(self, *names: x509.GeneralName, lifetime: timedelta = timedelta(days=1)) -> Path:
        """A certificate with its key, as one file."""
        path = self._directory / f"server-{len(list(self._directory.iterdir()))}.pem"
        path.write_bytes(
            b"".join(new_server_certificate(self._certificate, self._key, "collector", list(names), lifetime))
        )
        return path


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "trusted")


@pytest.fixture
def collector(authority: Authority) -> Iterator[RecordingCollector]:
    with running_collector(certificate=authority.server(LOOPBACK)) as made:
        yield made


def end(daemon: Daemon) -> str:
    """What the daemon wrote to its own log."""
    daemon.process.terminate()
    return daemon.process.communicate(timeout=60)[1].decode()


def test_all_three_kinds_go_to_a_collector_that_the_sandbox_trusts(
    start_daemon: Starter, collector: RecordingCollector, authority: Authority
) -> None:
    daemon = start_daemon(
        "echo",
        "hello",
        DAYTONA_OTEL_ENDPOINT=collector.url,
        SSL_CERT_FILE=str(authority.file),
        OTEL_METRIC_EXPORT_INTERVAL="50",
        OTEL_BSP_SCHEDULE_DELAY="1",
    )
    assert daemon.post("/init", {"token": "of-the-sandbox"}).status == 200
    assert daemon.get("/version").status == 200
    eventually(lambda: collector.spans("GET /version") and len(collector.of("/base/v1/metrics")) > 5)
    eventually(lambda: collector.lines() == [("INFO", "hello")])
    assert {token for _, token, _ in collector.posts} == {"of-the-sandbox"}
    assert collector.connections <= 3, "each kind may begin at the same moment, then one connection is kept"
    assert "telemetry_failed" not in end(daemon)


def test_a_collector_in_the_clear_costs_no_tls_and_one_behind_tls_a_little(
    start_daemon: Starter, collector: RecordingCollector, authority: Authority
) -> None:
    def spent(collector: RecordingCollector, name: str) -> tuple[bool, int]:
        daemon = start_daemon(name=name, DAYTONA_OTEL_ENDPOINT=collector.url, SSL_CERT_FILE=str(authority.file))
        assert daemon.post("/init", {}).status == 200
        eventually(lambda: collector.of("/base/v1/metrics"))
        pid = daemon.process.pid
        return "libssl" in Path(f"/proc/{pid}/maps").read_text(), private_dirty_kib(pid)

    with running_collector() as in_the_clear:
        is_loaded, without = spent(in_the_clear, "plain")
    assert not is_loaded
    is_loaded, spent_kib = spent(collector, "secured")
    assert is_loaded
    assert spent_kib - without < MORE_KIB


def test_a_directory_of_certificates_serves_as_well(
    start_daemon: Starter, collector: RecordingCollector, authority: Authority, tmp_path: Path
) -> None:
    directory = tmp_path / "certificates"
    directory.mkdir()
    command = ["openssl", "x509", "-hash", "-noout", "-in", str(authority.file)]
    hashed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    (directory / f"{hashed}.0").write_bytes(authority.file.read_bytes())
    daemon = start_daemon("echo", "hello", DAYTONA_OTEL_ENDPOINT=collector.url, SSL_CERT_DIR=str(directory))
    assert daemon.post("/init", {}).status == 200
    eventually(lambda: collector.lines() == [("INFO", "hello")])


def stranger(authority: Authority, directory: Path) -> tuple[Path, str]:
    return Authority(directory, "stranger").server(LOOPBACK), "unable to get local issuer certificate"


def other_name(authority: Authority, directory: Path) -> tuple[Path, str]:
    return authority.server(x509.DNSName("collector.example.com")), "IP address mismatch"


def expired(authority: Authority, directory: Path) -> tuple[Path, str]:
    return authority.server(LOOPBACK, lifetime=timedelta(hours=-1)), "certificate has expired"


@pytest.mark.parametrize("wrong", [stranger, other_name, expired])
def test_a_certificate_that_is_wrong_gets_nothing_and_is_said_once(
    start_daemon: Starter, authority: Authority, tmp_path: Path, wrong: Wrong
) -> None:
    certificate, said = wrong(authority, tmp_path)
    with running_collector(certificate=certificate) as collector:
        daemon = start_daemon(
            "echo",
            "secret line",
            DAYTONA_OTEL_ENDPOINT=collector.url,
            SSL_CERT_FILE=str(authority.file),
            OTEL_METRIC_EXPORT_INTERVAL="20",
        )
        assert daemon.post("/init", {"token": "secret-token"}).status == 200
        eventually(lambda: collector.connections >= 5)
        assert daemon.execute("echo works").json["result"] == "works\n"
        told = end(daemon)
        assert collector.posts == []
    failures = [line for line in told.splitlines() if "telemetry_failed path='/v1/metrics'" in line]
    assert len(failures) == 1
    assert said in failures[0]
    assert "secret" not in told.replace(str(tmp_path), "")


def test_a_collector_without_tls_is_no_https_endpoint(start_daemon: Starter, authority: Authority) -> None:
    with running_collector() as collector:
        endpoint = collector.url.replace("http:", "https:")
        daemon = start_daemon(DAYTONA_OTEL_ENDPOINT=endpoint, SSL_CERT_FILE=str(authority.file))
        assert daemon.post("/init", {}).status == 200
        eventually(lambda: collector.connections)
        eventually(lambda: b"telemetry_failed path='/v1/metrics'" in said(daemon))
        assert collector.posts == []


def said(daemon: Daemon) -> bytes:
    """The next line of its own log."""
    assert daemon.process.stderr is not None
    return daemon.process.stderr.readline()


def test_certificates_may_come_later(
    start_daemon: Starter, collector: RecordingCollector, authority: Authority
) -> None:
    late = authority.file.parent / "late.pem"
    daemon = start_daemon("echo", "kept", DAYTONA_OTEL_ENDPOINT=collector.url, SSL_CERT_FILE=str(late))
    assert daemon.post("/init", {}).status == 200
    eventually(lambda: f"the CA certificates of {late} cannot be read".encode() in said(daemon))
    late.write_bytes(authority.file.read_bytes())
    eventually(lambda: collector.lines() == [("INFO", "kept")])


def test_openssls_configuration_in_the_sandbox_is_for_the_sandboxs_programs(
    start_daemon: Starter, collector: RecordingCollector, authority: Authority, tmp_path: Path
) -> None:
    configuration = tmp_path / "openssl.cnf"
    configuration.write_text("openssl_conf = x\n[x]\nssl_conf = y\n[y]\nsystem_default = z\n[z]\nCipherString = NULL\n")
    daemon = start_daemon(
        "echo",
        "hello",
        DAYTONA_OTEL_ENDPOINT=collector.url,
        SSL_CERT_FILE=str(authority.file),
        OPENSSL_CONF=str(configuration),
    )
    assert daemon.post("/init", {}).status == 200
    eventually(lambda: collector.lines() == [("INFO", "hello")])
    assert daemon.execute("echo $OPENSSL_CONF").json["result"].strip() == str(configuration)


def test_a_sandbox_without_certificates_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README").touch()
    monkeypatch.setattr(tls, "FILES", (str(tmp_path / "none.crt"),))
    monkeypatch.setattr(tls, "DIRECTORIES", (str(tmp_path / "none"), str(tmp_path)))
    with pytest.raises(tls.NoAuthorities, match=r"no CA certificates.*SSL_CERT_FILE.*install ca-certificates"):
        tls.authorities({"SSL_CERT_FILE": ""})


def test_the_usual_places_are_read_unless_the_environment_names_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, directory = tmp_path / "ca.crt", tmp_path / "certs"
    directory.mkdir()
    file.touch()
    (directory / "0a1b2c3d.0").touch()
    monkeypatch.setattr(tls, "FILES", (str(tmp_path / "none.crt"), str(file)))
    monkeypatch.setattr(tls, "DIRECTORIES", (str(tmp_path), str(directory)))
    assert tls.authorities({}) == (str(file), str(directory))
    assert tls.authorities({"SSL_CERT_FILE": "/of/mine"}) == ("/of/mine", None)
    assert tls.authorities({"SSL_CERT_DIR": "/of/mine"}) == (None, "/of/mine")
