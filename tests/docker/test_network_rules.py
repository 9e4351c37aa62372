"""The network rules as text; that they hold is tried from inside a sandbox in test_isolation."""

import shutil
import subprocess
from pathlib import Path

import pytest

from sandyard_runner.runtime.docker.network import rules, table_name
from sandyard_runner.runtime.docker.options import DockerOptions

OPTIONS = DockerOptions("cafe0123", Path("/data"), Path("/doors"))


def test_only_our_own_bridge_is_touched() -> None:
    script = rules(OPTIONS)
    assert script.count(f'iifname != "{OPTIONS.bridge}" accept') == script.count("policy accept")


@pytest.mark.root
@pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not installed")
def test_the_script_is_one_that_nft_takes() -> None:
    checked = subprocess.run(["nft", "--check", "-f", "-"], input=rules(OPTIONS), capture_output=True, text=True)
    if "Operation not permitted" in checked.stderr:
        pytest.skip("needs to be root")
    assert checked.returncode == 0, checked.stderr


def test_two_installations_have_tables_of_their_own() -> None:
    assert table_name(OPTIONS) != table_name(DockerOptions("beef0123", Path("/data"), Path("/doors")))
