"""`sandyard save` and `load`: one machine layout into another, with byte-equal files and logs."""

import hashlib
import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import fresh_postgres_database
from tests.contract.running import Combination, Instance, start
from tests.contract.toolbox import Toolbox
from tests.contract.wire_client import request
from tests.sandyard import belongings
from tests.sandyard.command import COMPILED, SECONDS, sandyard

PLAIN = Combination("saving", "local", isolation="none")
ISOLATED = Combination("saving", "local")


def _begin(combination: Combination, folder: Path, *extra: str) -> Instance:
    return start(combination, folder, *extra, environment=COMPILED)


def _fill(instance: Instance) -> tuple[Toolbox, str]:
    """A sandbox with files, links and a command's log."""
    toolbox = Toolbox.create(instance, body={"name": "kept", "labels": {"a": "b"}})
    toolbox.session("s")
    script = (
        "mkdir -p d && head -c 100000 /dev/urandom > d/random && ln -s d/random link && ln d/random hard"
        " && chmod 600 d/random && touch -d 2001-02-03 old && md5sum d/random; printf 'no newline' >&2"
    )
    return toolbox, str(toolbox.run("s", script)["cmdId"])


def _record(toolbox: Toolbox, command: str) -> dict[str, Any]:
    """What is known of a command when its sandbox has ended: its log's last lines among it."""
    url = f"{toolbox.sandyard.origin}/_sandyard/sandboxes/{toolbox.id}/sessions/s/commands/{command}"
    deadline = time.monotonic() + SECONDS
    while (told := request("GET", url, headers=toolbox.headers)).status != 200 or told.json()["exitCode"] is None:
        assert time.monotonic() < deadline, told
    record: dict[str, Any] = told.json()
    assert record["logSize"] > 0
    return record


def _known(toolbox: Toolbox) -> list[str]:
    toolbox.session("look")
    script = "md5sum d/random link hard; stat -c '%a %h %Y' d/random old; readlink link"
    return str(toolbox.run("look", script)["output"]).splitlines()


@pytest.mark.parametrize("combination", [PLAIN, pytest.param(ISOLATED, marks=pytest.mark.root)])
@pytest.mark.postgres
def test_a_sandyard_on_sqlite_goes_to_postgres_with_files_and_logs(
    combination: Combination, tmp_path: Path, postgres_server_url: str
) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "saved.tar"
    instance = _begin(combination, old)
    toolbox, command = _fill(instance)
    record = _record(toolbox, command)
    known = _known(toolbox)
    assert "another Sandyard uses" in sandyard("save", file, "--data-dir", old / "data").stderr
    assert instance.stop() == 0

    saved = sandyard("save", file, "--data-dir", old / "data")
    assert saved.returncode == 0, saved.stderr
    assert file.stat().st_mode & 0o077 == 0
    url = fresh_postgres_database(postgres_server_url)
    loaded = sandyard("load", file, "--data-dir", new / "data", "--database-url", url)
    assert loaded.returncode == 0, loaded.stderr
    again = sandyard("load", file, "--data-dir", new / "data", "--database-url", url)
    assert "load into an empty --data-dir" in again.stderr

    instance = _begin(combination, new, "--database-url", url)
    try:
        moved = Toolbox(instance, toolbox.sandbox, {"Authorization": f"Bearer {instance.api_key}"})
        read = moved.api("GET", "/sandbox/kept").json()
        assert (read["id"], read["state"], read["labels"]) == (toolbox.id, "stopped", {"a": "b"})
        moved = _started(instance, toolbox, "kept")
        assert _known(moved) == known
        assert _record(moved, command) == record
        moved.delete()
        assert Toolbox.create(instance).id != toolbox.id, "new rows find their numbers"
    finally:
        instance.stop()


@pytest.mark.root
def test_files_of_every_kind_come_back_as_they_were_with_volumes_and_archived_sandboxes(tmp_path: Path) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "saved.tar"
    instance = _begin(ISOLATED, old)
    volume = Toolbox.create(instance).api("POST", "/volumes", {"name": "shared"}).json()
    mounts = [{"volumeId": volume["id"], "mountPath": "/mnt/shared"}]
    toolbox = Toolbox.create(instance, body={"name": "kept", "user": "root", "volumes": mounts})
    made = belongings.make(toolbox, belongings.HOLDS_ALL)
    _execute(toolbox, "mkdir -p /mnt/shared/work/a && echo in-volume > /mnt/shared/work/a/run.json")
    archived = Toolbox.create(instance, body={"name": "archived"})
    _execute(archived, "echo archived > kept-file")
    _archive(archived)
    assert instance.stop() == 0

    assert sandyard("save", file, "--data-dir", old / "data").returncode == 0
    loaded = sandyard("load", file, "--data-dir", new / "data")
    assert loaded.returncode == 0, loaded.stderr
    (sparse,) = new.rglob("kept/sparse")
    assert sparse.stat().st_size == belongings.SPARSE_BYTES
    assert sparse.stat().st_blocks * 512 < 1 << 20, "its hole is a hole again"

    instance = _begin(ISOLATED, new)
    try:
        moved = _started(instance, toolbox, "kept")
        assert belongings.fingerprint(moved, belongings.HOLDS_ALL) == made
        assert _execute(moved, "cat /mnt/shared/work/a/run.json") == "in-volume\n"
        assert moved.api("GET", "/sandbox/archived").json()["state"] == "archived"
        assert _execute(_started(instance, archived, "archived"), "cat kept-file") == "archived\n"
    finally:
        instance.stop()


def _execute(toolbox: Toolbox, command: str) -> str:
    answer = toolbox.call("POST", "/process/execute", {"command": command}).json()
    assert answer["exitCode"] == 0, answer
    return str(answer["result"])


def _archive(toolbox: Toolbox) -> None:
    for request_name, state in (("stop", "stopped"), ("archive", "archived")):
        assert toolbox.api("POST", f"/sandbox/{toolbox.id}/{request_name}").status == 200
        toolbox.wait_for(state)


def _started(instance: Instance, before: Toolbox, name: str) -> Toolbox:
    """The same sandbox in another Sandyard, started."""
    headers = {"Authorization": f"Bearer {instance.api_key}"}
    moved = Toolbox(instance, before.sandbox, headers)
    assert moved.api("POST", f"/sandbox/{name}/start").status == 200
    return Toolbox(instance, moved.wait_for("started"), headers)


def test_a_file_that_is_not_whole_or_not_ours_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    instance = _begin(PLAIN, tmp_path / "old")
    Toolbox.create(instance)
    instance.stop()
    file = tmp_path / "saved.tar"
    assert sandyard("save", file, "--data-dir", tmp_path / "old" / "data").returncode == 0
    whole = file.read_bytes()

    def refusal(content: bytes) -> str:
        file.write_bytes(content)
        done = sandyard("load", file, "--data-dir", tmp_path / "new")
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "new" / "sandboxes").exists()
        return done.stderr

    at = whole.index(b'["sandboxes"')
    assert "not what was saved" in refusal(whole[:at] + b"X" + whole[at + 1 :])
    assert "damaged" in refusal(whole[: len(whole) // 2])
    assert "sandyard save" in refusal(b"something else")
    assert "format 99" in refusal(whole.replace(b'"format": 2,', b'"format":99,', 1))


def test_an_archive_that_would_write_outside_is_refused(tmp_path: Path) -> None:
    instance = _begin(PLAIN, tmp_path / "old")
    instance.stop()
    file = tmp_path / "saved.tar"
    assert sandyard("save", file, "--data-dir", tmp_path / "old" / "data").returncode == 0
    for name in ("sandboxes/../../evil", "/evil", "sandboxes/box/link/evil"):
        _replace_files(file, name, tmp_path / "outside")
        done = sandyard("load", file, "--data-dir", tmp_path / "new")
        assert "outside its sandbox" in done.stderr
        assert not (tmp_path / "evil").exists()
        assert not (tmp_path / "outside" / "evil").exists()
        assert not (tmp_path / "new" / "sandboxes").exists()


def _replace_files(file: Path, name: str, outside: Path) -> None:
    """Put a malicious tree into the archive, with a manifest that fits."""
    outside.mkdir(exist_ok=True)
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tree:
        for path, kind, target in (
            ("sandboxes", tarfile.DIRTYPE, ""),
            ("sandboxes/box", tarfile.DIRTYPE, ""),
            ("sandboxes/box/link", tarfile.SYMTYPE, str(outside)),
        ):
            member = tarfile.TarInfo(path)
            member.type, member.linkname, member.mode = kind, target, 0o755
            tree.addfile(member)
        member = tarfile.TarInfo(name)
        member.size = 4
        tree.addfile(member, io.BytesIO(b"evil"))
    with tarfile.open(file) as archive:
        parts = {one.name: (archive.extractfile(one) or io.BytesIO()).read() for one in archive}
    parts["files.tar.gz"] = inner.getvalue()
    manifest = json.loads(parts["manifest.json"])
    manifest["hashes"]["files.tar.gz"] = hashlib.sha256(inner.getvalue()).hexdigest()
    parts["manifest.json"] = json.dumps(manifest).encode()
    with tarfile.open(file, "w") as archive:
        for part, content in parts.items():
            member = tarfile.TarInfo(part)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
