"""How a request becomes a container's configuration, and what a container's state is called."""

from pathlib import Path
from typing import Any

import pytest

from sandyard_api.jobs.wire import SandboxSpec
from sandyard_runner.daemon_bundle import Bundle
from sandyard_runner.runtime.contract import PresentState
from sandyard_runner.runtime.docker.container import (
    HostPaths,
    Image,
    configuration,
    exit_reason,
    read_image,
    read_present,
)
from sandyard_runner.runtime.docker.options import DockerOptions

OPTIONS = DockerOptions("11112222-3333", Path("/data"), Path("/doors"))
BUNDLE = Bundle(Path("/data/bundles/x"), "x", "amd64", "lib/ld.so")
PATHS = HostPaths("/engine/bundles/x", "/engine/doors/s")


def configured(*, image: Image | None = None, options: DockerOptions = OPTIONS, **fields: Any) -> dict[str, Any]:
    spec = SandboxSpec("s", "org", "name", "very-secret", **fields)
    return configuration(spec, image or Image("debian:12", (), "", is_default=False), BUNDLE, PATHS, options)


def test_limits_are_in_the_units_of_the_engine() -> None:
    host = configured(cpu=2, memory_gib=3)["HostConfig"]
    assert (host["CpuQuota"], host["Memory"], host["MemorySwap"]) == (200_000, 3 << 30, 3 << 30)


def test_a_sandbox_gets_no_privilege_and_no_capability() -> None:
    host = configured()["HostConfig"]
    assert not {"Privileged", "CapAdd", "Devices", "PidMode", "IpcMode"} & set(host)


def test_the_door_secret_is_nowhere_in_the_configuration() -> None:
    assert "very-secret" not in repr(configured())


def test_labels_of_the_user_do_not_become_labels_of_the_container() -> None:
    assert set(configured(labels={"dev.sandyard.installation": "other"})["Labels"].values()) == {"11112222-3333", "s"}


def test_blocking_the_network_leaves_no_network() -> None:
    assert configured(network_block_all=True)["HostConfig"]["NetworkMode"] == "none"
    assert configured()["HostConfig"]["NetworkMode"] == OPTIONS.network


def test_the_images_program_becomes_the_entrypoint_sessions() -> None:
    image = Image("nginx", ("/docker-entrypoint.sh", "nginx", "-g", "daemon off;"), "/srv", is_default=False)
    command = configured(image=image)["Entrypoint"]
    assert command[-7:] == ["--work-dir", "/srv", "--", "/docker-entrypoint.sh", "nginx", "-g", "daemon off;"]


def test_an_image_without_a_work_dir_gets_the_users_home() -> None:
    assert "DAYTONA_USER_HOME_AS_WORKDIR=true" in configured()["Env"]
    assert "--work-dir" not in configured()["Entrypoint"]


def test_the_users_environment_wins() -> None:
    assert [line for line in configured(env={"DAYTONA_REGION_ID": "mine"})["Env"] if "REGION" in line] == [
        "DAYTONA_REGION_ID=mine"
    ]


def test_another_oci_runtime_is_asked_for_by_name() -> None:
    options = DockerOptions("i", Path("/data"), Path("/doors"), oci_runtime="runsc")
    assert configured(options=options)["HostConfig"]["Runtime"] == "runsc"


def test_an_image_without_configuration_is_read() -> None:
    assert read_image("scratch", {"Config": None}, is_default=False) == Image("scratch", [], "", is_default=False)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        ({"ExitCode": 137, "OOMKilled": True}, "killed: out of memory"),
        ({"ExitCode": 0, "OOMKilled": True}, "its daemon ended"),
        ({"ExitCode": 143, "OOMKilled": False}, "ended by signal 15"),
        ({"ExitCode": 3}, "its daemon ended with exit code 3"),
        ({"ExitCode": 127, "Error": "no such file"}, "did not start: no such file"),
    ],
)
def test_the_cause_of_an_end_is_said_in_words(state: dict[str, Any], reason: str) -> None:
    assert exit_reason(state) == reason


def test_a_container_that_was_never_started_is_stopped_without_a_cause() -> None:
    present = read_present("s", {"State": {"Running": False, "Status": "created", "ExitCode": 0}})
    assert (present.state, present.exit_code, present.reason) == (PresentState.STOPPED, None, "")


def test_names_fit_the_kernels_limit_for_devices() -> None:
    assert len(OPTIONS.bridge) <= 15
    assert OPTIONS.bridge == "sy-11112222"
