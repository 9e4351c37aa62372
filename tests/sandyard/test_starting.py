"""Starting with less to do, and nothing that is missing afterwards."""

import ipaddress
import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from sandyard.certificates import new_authority, new_server_certificate
from tests.otlp import running_collector

POSTING = """
import asyncio, ssl, sys
from sandyard.starting import importing
with importing():
    import aiohttp, uvloop
    from aiohttp import connector
made = connector._SSL_CONTEXT_VERIFIED
before = made.cert_store_stats()["x509"]
async def post():
    headers = {"sandbox-auth-token": "token", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for _ in range(2):
            async with session.post(sys.argv[1], data=b"{}") as answer:
                told.append(answer.status)
told = []
try:
    (asyncio if sys.argv[2] == "asyncio" else uvloop).run(post())
except aiohttp.ClientConnectorCertificateError:
    told.append("not trusted")
is_usual = type(made) is ssl.SSLContext
print(told, before, made.cert_store_stats()["x509"] > 0, is_usual, made.verify_mode, made.check_hostname)
"""

COUNTING = """
import gc, json
from sandyard.starting import importing, uncollected
kept = []
def frozen(of):
    before = gc.get_freeze_count()
    with of():
        kept.append([[] for _ in range(10_000)])
        off = gc.isenabled()
    return [gc.get_freeze_count() - before >= 10_000, off, gc.isenabled()]
print(json.dumps([frozen(uncollected), frozen(importing), frozen(uncollected)]))
"""

REPLACED = """
import ssl
class Other(ssl.SSLContext):
    def set_default_verify_paths(self):
        pass
ssl.SSLContext = Other  # as truststore does
own = Other.set_default_verify_paths
from sandyard.starting import importing
with importing():
    inside = ssl.SSLContext.set_default_verify_paths
print(inside is own, ssl.SSLContext.set_default_verify_paths is own)
"""

UNUSED = """
import json, sys
from importlib.util import find_spec
from sandyard.starting import LATER, importing
with importing():
    import sandyard.wiring
stand_ins = [sys.modules[name] for name in LATER]
unloaded = ["__file__" not in vars(module) for module in stand_ins]
found = all(find_spec(name).origin.startswith("/") for name in LATER)
import yaml
from pdb import Pdb
works = found and yaml.safe_load("a: [1]") == {"a": [1]} and Pdb.__name__ == "Pdb"
replaced = [sys.modules[name] is not stand_in for name, stand_in in zip(LATER, stand_ins)]
same = [stand_in.__file__ == sys.modules[name].__file__ for name, stand_in in zip(LATER, stand_ins)]
print(json.dumps([unloaded, works, replaced, same, "wsproto" in sys.modules, "rich" in sys.modules]))
"""


def test_what_nobody_uses_is_not_imported_and_whoever_does_has_it() -> None:
    done = subprocess.run([sys.executable, "-c", UNUSED], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [[True, True], True, [True, True], [True, True], False, False]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_client_trusts_whom_the_machine_trusts_though_it_reads_that_only_when_it_asks(
    loop: str, tmp_path: Path
) -> None:
    authority, key = new_authority(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "of this test")]))
    (tmp_path / "authorities.pem").write_bytes(authority)
    server = tmp_path / "server.pem"
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    server.write_bytes(b"".join(new_server_certificate(authority, key, "server", names, timedelta(days=1))))

    def post(**variables: str) -> str:
        command = [sys.executable, "-c", POSTING, f"{collector.url}/v1/logs", loop]
        environment = os.environ | variables
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment).stdout

    with running_collector(certificate=server) as collector:
        trusting = post(SSL_CERT_FILE=str(tmp_path / "authorities.pem"))
        assert trusting == "[200, 200] 0 True True 2 True\n"
        (tmp_path / "nobody.pem").touch()
        nobody = {"SSL_CERT_FILE": str(tmp_path / "nobody.pem"), "SSL_CERT_DIR": str(tmp_path / "nowhere")}
        assert post(**nobody) == "['not trusted'] 0 False True 2 True\n"
    assert len(collector.posts) == 2


def test_what_a_process_of_ours_has_started_with_is_never_looked_at_again_and_a_guests_process_is_left_alone() -> None:
    done = subprocess.run([sys.executable, "-c", COUNTING], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == [[False, False, True], [True, False, True], [True, False, True]]


def test_whoever_has_put_another_context_in_the_place_of_pythons_keeps_it() -> None:
    done = subprocess.run([sys.executable, "-c", REPLACED], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "True True\n"
