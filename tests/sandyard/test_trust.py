"""The authority behind `sandyard trust`: for this machine's names only, and in and out of the store by commands."""

import ssl
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509

from sandyard.authority import authority_of
from sandyard.cli import main
from sandyard.issuing import issue_certificate, make_authority
from sandyard.trusting import CannotTrust, Store, run_steps, steps

DATA_OPTION = "--data-dir"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store whose command is there on every machine."""
    return Store(tmp_path / "store", ("true",))


def handshake(context: ssl.SSLContext, certificate: tuple[Path, Path], name: str) -> None:
    """TLS in memory between a client that trusts `context` and a server with that certificate."""
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(*certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = served.wrap_bio(to_server, to_client, server_side=True)
    client = context.wrap_bio(to_client, to_server, server_hostname=name)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "box.example.com"])
def test_a_client_that_trusts_the_authority_takes_its_certificates(tmp_path: Path, name: str) -> None:
    authority = authority_of(tmp_path)
    make_authority(authority, installation="0123456789", extra_names=["box.example.com"])
    context = ssl.create_default_context(cafile=str(authority.certificate))
    handshake(context, issue_certificate(authority, extra_names=["box.example.com"]), name)


def test_the_authority_cannot_pose_as_others(tmp_path: Path) -> None:
    authority = authority_of(tmp_path)
    make_authority(authority, installation="0123456789")
    context = ssl.create_default_context(cafile=str(authority.certificate))
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        handshake(context, issue_certificate(authority, extra_names=["bank.example.com"]), "bank.example.com")


def test_the_key_is_its_owners_and_the_authority_is_made_once(tmp_path: Path) -> None:
    authority = authority_of(tmp_path)
    make_authority(authority, installation="0123456789")
    assert stat.S_IMODE(authority.key.stat().st_mode) == 0o600
    before = authority.certificate.read_bytes()
    make_authority(authority, installation="0123456789")
    assert authority.certificate.read_bytes() == before
    certificate = x509.load_pem_x509_certificate(before)
    assert certificate.extensions.get_extension_for_class(x509.NameConstraints).critical


def test_steps_put_the_certificate_into_the_store_and_take_it_out(tmp_path: Path, store: Store) -> None:
    certificate = tmp_path / "ca.crt"
    certificate.write_text("a certificate")
    run_steps(steps(certificate, "sandyard-test", undo=False, stores=[store]))
    assert (store.folder / "sandyard-test.crt").read_text() == "a certificate"
    run_steps(steps(certificate, "sandyard-test", undo=True, stores=[store]))
    assert not (store.folder / "sandyard-test.crt").exists()


def test_without_a_store_or_the_right_to_change_it_the_user_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CannotTrust, match=r"add .* to its trusted certificates by hand"):
        steps(tmp_path / "ca.crt", "x", undo=False, stores=[Store(tmp_path, ("no-such-command",))])
    with pytest.raises(CannotTrust, match=r"Run as root:\n  sudo false"):
        run_steps([["false"]])


def test_a_dry_run_changes_nothing_and_the_certificate_can_be_printed(tmp_path: Path) -> None:
    runner = CliRunner()
    dry = runner.invoke(main, ["trust", DATA_OPTION, str(tmp_path), "--dry-run"])
    if dry.exit_code:
        pytest.skip("this machine has no store")
    assert not authority_of(tmp_path).exists
    printed = runner.invoke(main, ["trust", DATA_OPTION, str(tmp_path), "--certificate"])
    assert printed.stdout.startswith("-----BEGIN CERTIFICATE-----")
    nothing = runner.invoke(main, ["trust", DATA_OPTION, str(tmp_path / "other"), "--undo"])
    assert (nothing.exit_code, "nothing to do" in nothing.output) == (0, True)
