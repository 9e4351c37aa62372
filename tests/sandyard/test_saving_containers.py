"""`sandyard save` and `load` where sandboxes are in containers: from one data directory into another."""

import os
import signal
import tarfile
from pathlib import Path

import pytest

from tests.contract.running import Combination, Instance, start
from tests.contract.toolbox import Toolbox
from tests.engine import need_engine
from tests.sandyard import belongings
from tests.sandyard.command import COMPILED, sandyard
from tests.sandyard.test_saving import _archive, _execute, _record, _started

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
DOCKER = Combination("saving", "docker")
XATTRS = ("security.capability",)
"""Of the attributes, engines keep this one in images."""


@pytest.fixture(autouse=True)
def _engine() -> None:
    need_engine()


def _begin(folder: Path) -> Instance:
    return start(DOCKER, folder, "--ssh-port", "0", environment=COMPILED)


def _down(folder: Path) -> None:
    assert sandyard("down", "--data-dir", folder / "data").returncode == 0


def test_containers_go_to_another_data_directory_with_files_logs_volumes_and_what_was_made_of_them(
    tmp_path: Path,
) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "saved.tar"
    try:
        instance = _begin(old)
        volume = Toolbox.create(instance).api("POST", "/volumes", {"name": "shared"}).json()
        mounts = [{"volumeId": volume["id"], "mountPath": "/mnt/shared"}]
        toolbox = Toolbox.create(instance, body={"name": "kept", "user": "root", "volumes": mounts, "env": {"A": "b"}})
        made = belongings.make(toolbox, XATTRS)
        _execute(toolbox, "echo in-volume > /mnt/shared/file && chown 1234 /mnt/shared/file")
        toolbox.session("s")
        record = _record(toolbox, str(toolbox.run("s", "echo logged; printf 'no newline' >&2")["cmdId"]))
        archived = Toolbox.create(instance, body={"name": "archived"})
        _execute(archived, "echo archived > kept-file")
        _archive(archived)
        assert instance.stop() == 0

        saved = sandyard("save", file, "--data-dir", old / "data")
        assert saved.returncode == 0, saved.stderr
        assert "the files of 2 sandboxes" in saved.stdout
        beside = sandyard("load", file, "--data-dir", new / "data")
        assert "of another data directory" in beside.stderr, "one engine cannot hold them twice"
        assert not list((new / "data").glob("volumes/*"))
        _down(old)

        loaded = sandyard("load", file, "--data-dir", new / "data")
        assert loaded.returncode == 0, loaded.stderr
        instance = _begin(new)
        headers = {"Authorization": f"Bearer {instance.api_key}"}
        assert Toolbox(instance, toolbox.sandbox, headers).api("GET", "/sandbox/kept").json()["state"] == "stopped"
        moved = _started(instance, toolbox, "kept")
        assert belongings.fingerprint(moved, XATTRS) == made
        assert _execute(moved, "cat /mnt/shared/file; stat -c %u /mnt/shared/file; echo $A") == "in-volume\n1234\nb\n"
        assert _record(moved, str(record["id"])) == record
        assert moved.api("GET", "/sandbox/archived").json()["state"] == "archived"
        assert _execute(_started(instance, archived, "archived"), "cat kept-file") == "archived\n"
        moved.delete()
        instance.stop()
    finally:
        _down(old)
        _down(new)


def test_one_that_runs_is_held_still_and_goes_on_and_is_stopped_where_it_is_loaded(tmp_path: Path) -> None:
    """A Sandyard that was killed leaves its containers running."""
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "saved.tar"
    try:
        instance = _begin(old)
        toolbox = Toolbox.create(instance, body={"name": "kept"})
        writer = "n=0; while true; do n=$((n+1)); echo $n >> a; echo $n >> b; done"
        toolbox.session("s")
        toolbox.run("s", f"({writer}) &")
        os.kill(instance.process.pid, signal.SIGKILL)
        instance.process.wait()

        saved = sandyard("save", file, "--data-dir", old / "data")
        assert saved.returncode == 0, saved.stderr
        instance = _begin(old)
        again = Toolbox(instance, toolbox.sandbox, {"Authorization": f"Bearer {instance.api_key}"})
        assert again.api("GET", "/sandbox/kept").json()["state"] == "started"
        again = Toolbox(instance, again.api("GET", "/sandbox/kept").json(), again.headers)
        first = _execute(again, "tail -n 1 a").strip()
        assert _execute(again, f'until [ "$(tail -n 1 a)" != {first} ]; do sleep 0.1; done; echo on') == "on\n"
        instance.stop()
        _down(old)

        assert sandyard("load", file, "--data-dir", new / "data").returncode == 0
        instance = _begin(new)
        moved = Toolbox(instance, toolbox.sandbox, {"Authorization": f"Bearer {instance.api_key}"})
        moved.wait_for("stopped")
        values = _execute(_started(instance, toolbox, "kept"), "tail -q -n 1 a b").split()
        assert 0 <= int(values[0]) - int(values[1]) <= 1
        instance.stop()
    finally:
        _down(old)
        _down(new)


def test_a_file_with_containers_is_refused_where_no_engine_answers_and_a_layer_that_changed_is_found(
    tmp_path: Path,
) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "saved.tar"
    try:
        instance = _begin(old)
        Toolbox.create(instance, body={"name": "kept"})
        instance.stop()
        away = {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"}
        refused = sandyard("save", file, "--data-dir", old / "data", **away)
        assert "the files of 1 sandboxes are neither" in refused.stderr
        assert sandyard("save", file, "--without-files", "--data-dir", old / "data", **away).returncode == 0
        assert sandyard("save", file, "--data-dir", old / "data").returncode == 0
        refused = sandyard("load", file, "--data-dir", new / "data", **away)
        assert "no Docker engine answers" in refused.stderr
        with tarfile.open(file) as archive:
            at = archive.getmember("containers.tar.gz").offset_data + 5000
        with file.open("r+b") as content:
            content.seek(at)
            byte = content.read(1)
            content.seek(at)
            content.write(bytes([byte[0] ^ 1]))
        refused = sandyard("load", file, "--data-dir", new / "data")
        assert "containers.tar.gz is not what was saved" in refused.stderr
    finally:
        _down(old)
