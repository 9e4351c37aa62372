"""Builds and pulls on a real engine: contexts, logs, failures, logins, what steps may reach, and what stays behind."""

import contextlib
import io
import secrets
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker
import pytest

from sandyard_api.jobs.wire import BUILD_REPOSITORY, RegistryLogin
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.contract import Build
from sandyard_runner.runtime.docker import DockerOptions, remove_everything
from sandyard_runner.runtime.docker.builds import login_for, registry_key
from sandyard_runner.runtime.docker.runtime import DockerRuntime
from tests.docker.conftest import BUSYBOX, execute, need_image, started
from tests.docker.registry import Registry, layer_of, serving

pytestmark = pytest.mark.docker


@pytest.fixture(autouse=True)
def base(engine: Any) -> None:
    need_image(engine, BUSYBOX)


@pytest.fixture
def registry() -> Iterator[Registry]:
    with serving() as running:
        yield running


def reference() -> str:
    """The name of a build nobody else has."""
    return f"{BUILD_REPOSITORY}:{secrets.token_hex(20)}"


def build(dockerfile: str, *contexts: bytes) -> Build:
    """A build with contexts of those tars."""

    async def fetch(folder: Path) -> Sequence[Path]:
        paths = [folder / f"{number}.tar" for number in range(len(contexts))]
        for path, content in zip(paths, contexts, strict=True):
            path.write_bytes(content)
        return paths

    return Build(dockerfile, fetch)


def left_of(engine: Any, token: str) -> list[str]:
    """Containers and images that a build with that word in its steps left behind."""
    containers = [item["Id"] for item in engine.containers(all=True) if token in str(item["Command"])]
    images = [item["Id"] for item in engine.images(all=True) if item["RepoTags"] in (None, ["<none>:<none>"])]
    left = []
    for image in images:
        with contextlib.suppress(docker.errors.NotFound):  # other tests remove theirs meanwhile
            if token in str(engine.history(image)):
                left.append(image)
    return containers + left


@contextmanager
def greeting() -> Iterator[int]:
    """A server on every address of this machine that says `reached` and hangs up; its port."""

    class Greeter(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"reached\n")

    with socketserver.ThreadingTCPServer(("0.0.0.0", 0), Greeter) as server:  # noqa: S104  what the rules are for
        thread = threading.Thread(target=server.serve_forever, name="greeter", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


async def test_a_build_joins_its_contexts_and_says_what_it_does(runtime: DockerRuntime, engine: Any) -> None:
    one, two = layer_of({"src/a.txt": b"alpha\n"}), layer_of({"home/x/b.txt": b"beta\n", "../../up.txt": b"up\n"})
    lines: list[str] = []
    name = reference()
    dockerfile = (
        f"FROM {BUSYBOX}\nCOPY src/a.txt /data/a.txt\nCOPY home/x /data/x\nCOPY up.txt /data/\n"
        "RUN echo hello-$((40+2))\n"
        'ENV GREETING=hi\nWORKDIR /data\nENTRYPOINT ["sleep"]\nCMD ["77"]\n'
    )
    facts = await runtime.ensure_image(name, lines.append, build=build(dockerfile, one, two))
    assert list(facts.entrypoint) == ["sleep", "77"]
    assert facts.size_bytes is not None
    assert facts.size_bytes > 1_000_000
    assert "hello-42" in lines
    assert any(line.startswith("Step 5/") for line in lines)
    sandbox = await started(runtime, image=name)
    assert await execute(runtime, sandbox, "pwd; cat a.txt x/b.txt up.txt; echo $GREETING") == (
        0,
        "/data\nalpha\nbeta\nup\nhi\n",
    )
    assert name not in await runtime.built_images()  # asked for just now
    await runtime.remove(sandbox.sandbox_id)
    await runtime.remove_build(name)
    with pytest.raises(docker.errors.ImageNotFound):
        engine.inspect_image(name)


async def test_the_same_build_is_made_once(runtime: DockerRuntime) -> None:
    name, lines = reference(), list[str]()
    await runtime.ensure_image(name, lambda line: None, build=build(f"FROM {BUSYBOX}\nRUN date +%N > /at\n"))
    await runtime.ensure_image(name, lines.append, build=build("FROM no/such:image\n"))
    assert lines == [f"The image is there: {name}"]


async def test_a_failed_build_says_why_and_leaves_nothing(runtime: DockerRuntime, engine: Any) -> None:
    name, lines = reference(), list[str]()
    token = secrets.token_hex(4)
    dockerfile = (
        f"FROM {BUSYBOX}\nRUN echo {token} > /one\nRUN echo {token} two > /two\n"
        f"RUN echo about to fail; exit 3 # {token}\n"
    )
    with pytest.raises(RuntimeFailure, match=r"cannot build the image: .*exit 3.*non-zero code: 3"):
        await runtime.ensure_image(name, lines.append, build=build(dockerfile))
    assert "about to fail" in lines
    assert left_of(engine, token) == []
    with pytest.raises(docker.errors.ImageNotFound):
        engine.inspect_image(name)
    assert engine.inspect_image(BUSYBOX)["Id"]


async def test_a_dockerfile_that_is_none_and_a_context_that_is_none_are_said_to_be(runtime: DockerRuntime) -> None:
    with pytest.raises(RuntimeFailure, match=r"cannot build the image: .*RUNN"):
        await runtime.ensure_image(reference(), lambda line: None, build=build(f"FROM {BUSYBOX}\nRUNN true\n"))
    with pytest.raises(RuntimeFailure, match="a build context is not a tar file"):
        await runtime.ensure_image(reference(), lambda line: None, build=build(f"FROM {BUSYBOX}\n", b"no tar" * 500))
    with pytest.raises(RuntimeFailure, match=r"cannot build the image: .*nothing\.txt"):
        await runtime.ensure_image(
            reference(), lambda line: None, build=build(f"FROM {BUSYBOX}\nCOPY nothing.txt /\n", layer_of({"a": b""}))
        )


async def test_a_build_step_is_on_the_sandboxes_network_and_sees_no_door(
    runtime: DockerRuntime, options: DockerOptions
) -> None:
    lines: list[str] = []
    dockerfile = (
        f"FROM {BUSYBOX}\nRUN echo address=$(hostname -i)\nRUN ls /run/sandyard /var/run/docker.sock 2>&1 || true\n"
        "RUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null || true\n"
    )
    await runtime.ensure_image(reference(), lines.append, build=build(dockerfile))
    client = docker.APIClient(version="auto")
    subnet = client.inspect_network(options.network)["IPAM"]["Config"][0]["Subnet"]
    client.close()
    [address] = [line for line in lines if line.startswith("address=")]
    assert address.removeprefix("address=").split(".")[:2] == subnet.split(".")[:2]
    assert sum("No such file" in line for text in lines for line in text.splitlines()) == 2
    assert any(str(options.build_memory_bytes) in line for line in lines)


async def test_a_build_step_cannot_reach_this_machine(runtime: DockerRuntime, engine: Any) -> None:
    """What listens here stands for the control plane or a database; from the engine's own bridge it can be reached."""
    with greeting() as port:
        # What must be reached is waited for as long as a busy machine takes.
        probe, patient_probe = (
            f"FROM {BUSYBOX}\nRUN echo {secrets.token_hex(4)}; gateway=$(ip route | awk '/default/ {{print $3}}'); "
            f"timeout {seconds + 3} nc -w {seconds} $gateway {port} || echo not reached\n"
            for seconds in (2, 30)
        )
        lines: list[str] = []
        await runtime.ensure_image(reference(), lines.append, build=build(probe))
        assert "not reached" in lines
        dockerfile = io.BytesIO(patient_probe.encode())
        items = engine.build(fileobj=dockerfile, decode=True, rm=True, forcerm=True, nocache=True)
        said = [str(item.get("stream", "")).strip() for item in items]
        assert "reached" in said
        for line in said:
            if line.startswith("Successfully built "):
                engine.remove_image(line.rpartition(" ")[2])


async def test_what_down_removes_are_the_builds_too(
    runtime: DockerRuntime, options: DockerOptions, engine: Any
) -> None:
    name = reference()
    await runtime.ensure_image(name, lambda line: None, build=build(f"FROM {BUSYBOX}\nRUN true\n"))
    assert f"removed image {name}" in await remove_everything(options)
    assert engine.inspect_image(BUSYBOX)["Id"]
    with pytest.raises(docker.errors.ImageNotFound):
        engine.inspect_image(name)


async def test_an_image_is_pulled_with_the_login_of_its_registry(
    runtime: DockerRuntime, registry: Registry, engine: Any
) -> None:
    arch = engine.version()["Arch"]
    image = registry.add("team/app:1.0", layer_of({"hello": b"hi\n"}), arch=arch, config={"Cmd": ["/serve"]})
    wrong = RegistryLogin(registry.address, "robot", "wrong")
    with pytest.raises(RuntimeFailure, match=rf"cannot pull {image}"):
        await runtime.ensure_image(image, lambda line: None)
    with pytest.raises(RuntimeFailure, match=rf"cannot pull {image}"):
        await runtime.ensure_image(image, lambda line: None, logins=[wrong])
    lines: list[str] = []
    right = RegistryLogin(f"{registry.address}/team", registry.username, registry.password)
    try:
        facts = await runtime.ensure_image(image, lines.append, logins=[wrong, right])
        assert list(facts.entrypoint) == ["/serve"]
        assert lines[0] == f"Pulling {image}"
        assert any("Pull complete" in line for line in lines)
        unknown = f"{registry.address}/team/app:2.0"
        with pytest.raises(RuntimeFailure, match=rf"cannot pull {unknown}: .*unknown"):
            await runtime.ensure_image(unknown, lambda line: None, logins=[right])
    finally:
        with contextlib.suppress(docker.errors.ImageNotFound):
            engine.remove_image(image, force=True)


async def test_the_base_of_a_build_is_pulled_with_its_login(
    runtime: DockerRuntime, registry: Registry, engine: Any
) -> None:
    image = registry.add("base:1", layer_of({"hello": b"hi\n"}), arch=engine.version()["Arch"], config={})
    login = RegistryLogin(registry.address, registry.username, registry.password)
    name = reference()
    try:
        with pytest.raises(RuntimeFailure, match="cannot build the image"):
            await runtime.ensure_image(name, lambda line: None, build=build(f"FROM {image}\nENV A=1\n"))
        await runtime.ensure_image(name, lambda line: None, build=build(f"FROM {image}\nENV A=1\n"), logins=[login])
        assert "A=1" in engine.inspect_image(name)["Config"]["Env"]
    finally:
        for made in (name, image):
            with contextlib.suppress(docker.errors.ImageNotFound):
                engine.remove_image(made, force=True)


def test_the_login_with_the_longest_prefix_is_shown() -> None:
    logins = [
        RegistryLogin("ghcr.io", "a", "1"),
        RegistryLogin("ghcr.io/team", "b", "2"),
        RegistryLogin("docker.io", "hub", "3"),
    ]
    assert login_for("ghcr.io/team/x:1", logins) == {"username": "b", "password": "2"}
    assert login_for("ghcr.io/teammate/x:1", logins) == {"username": "a", "password": "1"}
    assert login_for("debian:12", logins) == {"username": "hub", "password": "3"}
    assert login_for("quay.io/x:1", logins) is None
    assert registry_key("docker.io") == "https://index.docker.io/v1/"
    assert registry_key("localhost:5000/team") == "localhost:5000"
