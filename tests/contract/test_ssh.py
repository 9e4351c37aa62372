"""SSH into sandboxes, by asyncssh and by OpenSSH's programs, against a running Sandyard."""

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncssh
import jsonschema  # type: ignore[import-untyped]
import pytest

from tests.contract.running import Instance
from tests.contract.ssh_clients import (
    SECONDS,
    address,
    logged_in,
    make_access,
    openssh,
    random_file,
    refusal,
    ssh,
    transfer,
)
from tests.contract.toolbox import Toolbox
from tests.contract.wire_client import request
from tests.daemon.conftest import eventually

DESCRIPTION = Path(__file__).parents[3] / "shared" / "contract" / "openapi" / "api.json"
MIB = 1 << 20
ROUNDS = 10


@pytest.fixture(scope="session")
def box(sandyard: Instance) -> Iterator[Toolbox]:
    toolbox = Toolbox.create(sandyard)
    yield toolbox
    toolbox.delete()


@pytest.fixture
def access(box: Toolbox) -> dict[str, Any]:
    return make_access(box)


def check(body: object, schema: str) -> None:
    """Against the protocol's own description, where it is beside us."""
    if not DESCRIPTION.exists():
        return
    whole = json.loads(DESCRIPTION.read_text())
    jsonschema.validate(body, {"$ref": f"#/components/schemas/{schema}", "components": whole["components"]})


def test_bodies_are_as_described_and_config_shows_the_command(box: Toolbox) -> None:
    made = make_access(box, "?expiresInMinutes=5")
    check(made, "SshAccessDto")
    assert made["sandboxId"] == box.id
    host, port, user = address(made)
    assert user == made["token"]
    config = box.api("GET", "/config").json()
    check(config, "DaytonaConfiguration")
    assert config["sshGatewayCommand"] == f"ssh -p {port} {{{{TOKEN}}}}@{host}"
    valid = box.api("GET", f"/sandbox/ssh-access/validate?token={user}").json()
    check(valid, "SshAccessValidationDto")
    assert valid == {"valid": True, "sandboxId": box.id}
    revoked = box.api("DELETE", f"/sandbox/{box.id}/ssh-access?token={user}")
    assert revoked.status == 200
    check(revoked.json(), "Sandbox")
    assert box.api("GET", f"/sandbox/ssh-access/validate?token={user}").json() == {"valid": False, "sandboxId": ""}


def test_the_python_sdk_makes_validates_and_revokes_access(sandyard: Instance, box: Toolbox) -> None:
    from tests.contract.python_client import client  # an import of a second, only for this

    with client(sandyard, sandyard.api_key) as daytona:
        sandbox = daytona.get(box.id)
        made = sandbox.create_ssh_access(expires_in_minutes=10)
        assert made.ssh_command.endswith(f"{made.token}@{sandyard.host}")
        assert ssh({"sshCommand": made.ssh_command}, "echo $((6 * 7))").stdout == b"42\n"
        assert sandbox.validate_ssh_access(made.token).valid
        sandbox.revoke_ssh_access(made.token)
        assert not sandbox.validate_ssh_access(made.token).valid
        assert ssh({"sshCommand": made.ssh_command}, "true").returncode == 255


def test_ssh_runs_commands_with_status_input_and_both_outputs(access: dict[str, Any]) -> None:
    done = ssh(access, "cat; echo err >&2; exit 7", stdin=b"in\0put")
    assert (done.stdout, done.stderr, done.returncode) == (b"in\0put", b"err\n", 7)


def test_ssh_gives_a_command_a_terminal_when_asked(access: dict[str, Any]) -> None:
    done = ssh(access, "test -t 0 && echo terminal; exit 3", options=["-tt"])
    assert (b"terminal\r\n" in done.stdout, done.returncode) == (True, 3)


def test_ssh_without_a_command_is_a_shell_that_reads_its_input(access: dict[str, Any]) -> None:
    done = ssh(access, stdin=b"echo $((40 + 2))\nexit 9\n", options=["-T"])
    assert (done.stdout, done.returncode) == (b"42\n", 9)


def test_big_output_and_input_come_through_whole(access: dict[str, Any]) -> None:
    data = os.urandom(20 * MIB)
    assert ssh(access, "cat", stdin=data).stdout == data


async def test_a_program_that_does_not_read_its_input_can_be_signalled_and_gets_all_of_it_later(
    access: dict[str, Any],
) -> None:
    late = "on=1; trap 'on=' USR1; echo on; while [ $on ]; do sleep 0.05; done; wc -c"
    async with logged_in(access) as connection:
        process = await connection.create_process(late)
        await process.stdout.readuntil("on\n")
        process.stdin.write("x" * (8 * MIB))
        process.stdin.write_eof()
        process.send_signal("USR1")
        assert int(await process.stdout.readline()) == 8 * MIB


async def test_a_shell_has_a_terminal_that_is_resized(access: dict[str, Any]) -> None:
    async with logged_in(access) as connection:
        process = await connection.create_process(term_type="vt220", term_size=(100, 30))
        process.stdin.write("PS1=; stty -echo; echo is $TERM; stty size\n")
        assert "is vt220\n" in (await process.stdout.readuntil("30 100")).replace("\r", "")
        process.change_terminal_size(90, 20)
        process.stdin.write("until [ \"$(stty size)\" = '20 90' ]; do :; done; echo resized\nexit 5\n")
        await process.stdout.readuntil("resized")
        await process.wait()
    assert process.exit_status == 5


async def test_signals_reach_the_program_and_a_death_by_one_is_told(access: dict[str, Any]) -> None:
    async with logged_in(access) as connection:
        process = await connection.create_process("trap 'echo caught' USR1; echo on; while :; do sleep 0.05; done")
        await process.stdout.readuntil("on\n")
        process.send_signal("USR1")
        await process.stdout.readuntil("caught\n")
        process.send_signal("KILL")
        await process.wait()
    assert process.exit_signal is not None
    assert process.exit_signal[0] == "KILL"


async def test_variables_that_can_be_set_are_and_the_connection_is_told(access: dict[str, Any]) -> None:
    async with logged_in(access) as connection:
        done = await connection.run("echo $LC_X; echo $SSH_CONNECTION", env={"LC_X": "a b", "1 bad": "x"}, check=True)
    first, second = str(done.stdout).splitlines()
    assert first == "a b"
    assert len(second.split()) == 4


async def test_channels_of_one_connection_run_side_by_side_up_to_a_bound(access: dict[str, Any]) -> None:
    async with logged_in(access) as connection:
        done = await asyncio.gather(*(connection.run(f"echo {number}", check=True) for number in range(10)))
        assert [int(str(each.stdout)) for each in done] == list(range(10))
        many = [await connection.create_process("sleep 100") for _ in range(64)]
        with pytest.raises(asyncssh.ChannelOpenError, match="too many"):
            await connection.run("true")
        many[0].close()
        await many[0].wait_closed()
        assert (await connection.run("true")).exit_status == 0


async def test_a_client_that_goes_takes_its_programs_along(box: Toolbox, access: dict[str, Any]) -> None:
    async with logged_in(access) as connection:
        process = await connection.create_process("echo on; sleep 98765")
        await process.stdout.readuntil("on\n")
        connection.abort()
    seen = {"command": "sh -c 'cat /proc/[0-9]*/cmdline 2>/dev/null' | tr '\\0' ' ' | grep -c 'sleep 9876[5]' || true"}

    def count() -> str:
        return str(box.call("POST", "/process/execute", seen).json()["result"]).strip()

    await asyncio.to_thread(eventually, lambda: count() == "0", SECONDS)


def test_sftp_carries_100_mb_both_ways_unchanged(access: dict[str, Any], tmp_path: Path) -> None:
    there, back = random_file(tmp_path / "there", 100 * MIB), tmp_path / "back"
    transfer(access, "sftp", "-b", "-", "{}", batch=f"put {there} big\nget big {back}\nrm big\n")
    assert back.read_bytes() == there.read_bytes()


@pytest.mark.parametrize("form", [(), ("-O",)], ids=["by-sftp", "by-the-old-protocol"])
def test_scp_copies_trees_both_ways(access: dict[str, Any], tmp_path: Path, form: tuple[str, ...]) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "ünï code").write_bytes(b"\0text")
    (tree / "run").write_text("#!/bin/sh\n")
    (tree / "run").chmod(0o750)
    name = f"tree{len(form)}"
    transfer(access, "scp", *form, "-rp", str(tree), f"{{}}:{name}")
    transfer(access, "scp", *form, "-rp", f"{{}}:{name}", str(tmp_path / "back"))
    back = tmp_path / "back"
    assert (back / "deep" / "ünï code").read_bytes() == b"\0text"
    assert (back / "run").stat().st_mode & 0o777 == 0o750
    assert int((back / "run").stat().st_mtime) == int((tree / "run").stat().st_mtime)


async def test_sftp_lists_links_renames_and_says_what_is_wrong(access: dict[str, Any]) -> None:
    async with logged_in(access) as connection, connection.start_sftp_client() as sftp:
        await sftp.mkdir("place")
        async with sftp.open("place/a", "wb") as file:
            await file.write(b"1234567")
            await file.seek(2)
            assert await file.write(b"x") == 1
        await sftp.symlink("a", "place/b")
        await sftp.rename("place/a", "place/c")
        assert sorted(str(name) for name in await sftp.listdir("place")) == [".", "..", "b", "c"]
        assert await sftp.readlink("place/b") == "a"
        await sftp.posix_rename("place/c", "place/b")
        assert (await sftp.stat("place/b")).size == 7
        await sftp.setstat("place/b", asyncssh.SFTPAttrs(permissions=0o600, atime=1000, mtime=2000))
        found = await sftp.stat("place/b")
        assert ((found.permissions or 0) & 0o777, found.mtime) == (0o600, 2000)
        with pytest.raises(asyncssh.SFTPNoSuchFile):
            await sftp.stat("place/nothing")
        with pytest.raises(asyncssh.SFTPError):
            await sftp.rmdir("place")
        assert (await sftp.statvfs("/")).bsize > 0
        await sftp.rmtree("place")


async def test_a_server_in_the_sandbox_is_reached_by_forwarding_its_port_or_socket(
    box: Toolbox, access: dict[str, Any]
) -> None:
    path = f"/tmp/{box.id}.sock"  # some of these sandboxes share the machine's own
    server = base64.b64encode(
        b"import socket, threading\n"
        b"a = socket.create_server(('127.0.0.1', 8123))\n"
        b"b = socket.socket(socket.AF_UNIX); b.bind('" + path.encode() + b"'); b.listen()\n"
        b"def serve(s):\n"
        b"  while True:\n"
        b"    c = s.accept()[0]; data = b''\n"
        b"    while d := c.recv(65536): data += d\n"
        b"    c.sendall(data[::-1]); c.close()\n"
        b"threading.Thread(target=serve, args=(a,)).start(); print('on', flush=True); serve(b)\n"
    ).decode()
    async with logged_in(access) as connection:
        run = f"echo {server} | base64 -d >~/s.py; exec python3 ~/s.py || exec /opt/sandyard/bin/python3 ~/s.py"
        process = await connection.create_process(run)
        if "on" not in await process.stdout.readline():
            pytest.skip("no Python in this sandbox to serve with")
        sent = bytes(range(256)) * 4096
        for opening in (
            connection.open_connection("localhost", 8123),
            connection.open_unix_connection(path),
        ):
            reader, writer = await opening
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == sent[::-1]
        listener = await connection.forward_local_port("127.0.0.1", 0, "localhost", 8123)
        reader2, writer2 = await asyncio.open_connection("127.0.0.1", listener.get_port())
        writer2.write(b"abc")
        writer2.write_eof()
        assert await reader2.read() == b"cba"
        writer2.close()
        listener.close()
        with pytest.raises(asyncssh.ChannelOpenError):
            await connection.open_connection("localhost", 9)
        with pytest.raises(asyncssh.ChannelOpenError, match="sandbox itself"):
            await connection.open_connection("192.0.2.1", 80)


async def test_a_connection_counts_as_activity(box: Toolbox, access: dict[str, Any]) -> None:
    def used() -> str:
        return str(box.api("GET", f"/sandbox/{box.id}").json()["lastActivityAt"])

    before = used()
    async with logged_in(access):
        await asyncio.to_thread(eventually, lambda: used() > before, SECONDS / 2)


def test_agent_and_x11_forwarding_are_refused_without_harm(access: dict[str, Any]) -> None:
    done = ssh(access, "echo ${SSH_AUTH_SOCK-none} ${DISPLAY-none}", options=["-A", "-X"])
    assert (done.stdout, done.returncode) == (b"none none\n", 0)


async def test_a_wrong_a_replaced_and_a_revoked_token_let_nobody_in(box: Toolbox) -> None:
    first = make_access(box)
    async with logged_in(first) as connection:
        second = make_access(box)
        assert "not valid" in await refusal(first)
        assert box.api("DELETE", f"/sandbox/{box.id}/ssh-access").status == 200
        assert "not valid" in await refusal(second)
        assert (await connection.run("echo still here", check=True)).stdout == "still here\n"
    assert "not valid" in await refusal(first | {"sshCommand": first["sshCommand"].replace(first["token"], "../x")})


async def test_an_expired_token_says_so(box: Toolbox) -> None:
    access = make_access(box, "?expiresInMinutes=0.00001")
    assert "expired" in await refusal(access)


async def test_a_stopped_sandbox_says_so_and_ends_its_connections(sandyard: Instance) -> None:
    toolbox = Toolbox.create(sandyard)
    try:
        access = make_access(toolbox)
        async with logged_in(access) as connection:
            stopped = toolbox.api("POST", f"/sandbox/{toolbox.id}/stop")
            assert stopped.status == 200
            await connection.wait_closed()
        assert "not running" in await refusal(access)
    finally:
        toolbox.delete()
    said = await refusal(access)
    assert "destroy" in said or "exist" in said or "not valid" in said


def test_nothing_is_left_open(sandyard: Instance, box: Toolbox, access: dict[str, Any], tmp_path: Path) -> None:
    openssh("scp")
    folder = Path(f"/proc/{sandyard.process.pid}/fd")

    def once() -> None:
        ssh(access, "true")
        transfer(access, "scp", str(Path(__file__)), "{}:copy")

    def count() -> int:
        return len(list(folder.iterdir()))

    once()
    before = count()
    for _ in range(ROUNDS):
        once()
    # A pool of connections may have grown meanwhile; what is left open is so once in each round.
    eventually(lambda: count() < before + ROUNDS, SECONDS)


@pytest.mark.parametrize("minutes", ["0", "-1", "1e9", "soon"])
def test_a_life_out_of_range_is_refused(box: Toolbox, minutes: str) -> None:
    answer = box.api("POST", f"/sandbox/{box.id}/ssh-access?expiresInMinutes={minutes}")
    assert answer.status == 400
    assert "expiresInMinutes" in answer.json()["message"]


def test_access_is_asked_for_with_a_key_and_for_a_sandbox_that_is_there(sandyard: Instance, box: Toolbox) -> None:
    url = f"{sandyard.api_url}/sandbox/{box.id}/ssh-access"
    assert request("POST", url).status == 401
    assert box.api("POST", "/sandbox/nobody/ssh-access").status == 404
    assert box.api("GET", "/sandbox/ssh-access/validate").status == 400
