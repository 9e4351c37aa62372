"""References, progress lines and our own image's identity."""

import tarfile

import pytest

from sandyard_runner.runtime.docker.images import (
    FULL_REFERENCE,
    Progress,
    context,
    dockerfile,
    full_reference,
    own_reference,
    own_stages,
)


@pytest.mark.parametrize(
    ("given", "full"),
    [
        ("debian", "debian:latest"),
        ("debian:12", "debian:12"),
        ("localhost:5000/team/app", "localhost:5000/team/app:latest"),
        ("app@sha256:" + "0" * 64, "app@sha256:" + "0" * 64),
    ],
)
def test_a_name_without_a_tag_means_the_latest(given: str, full: str) -> None:
    assert full_reference(given) == full


def test_our_own_image_is_known_by_the_file_it_is_built_from() -> None:
    assert own_reference().startswith("sandyard/sandbox:slim-")
    assert b" AS slim" in dockerfile()


def test_each_of_our_own_images_is_a_stage_of_that_file() -> None:
    assert own_stages() == {own_reference(): "slim", FULL_REFERENCE: "full"}
    for stage in own_stages().values():
        assert f" AS {stage}\n".encode() in dockerfile()


def test_the_build_context_is_that_file_alone() -> None:
    with tarfile.open(fileobj=context()) as archive:
        assert archive.getnames() == ["Dockerfile"]


def test_progress_is_one_line_per_step_and_none_per_byte() -> None:
    lines: list[str] = []
    progress = Progress(lines.append)
    for item in (
        {"status": "Downloading", "id": "abc", "progressDetail": {"current": 1}},
        {"status": "Downloading", "id": "abc", "progressDetail": {"current": 2}},
        {"status": "Pull complete", "id": "abc"},
        {"stream": "Step 1/2 : FROM x\n"},
        {"stream": "\n"},
    ):
        progress.take(item)
    assert lines == ["abc: Downloading", "abc: Pull complete", "Step 1/2 : FROM x"]


def test_an_error_in_the_middle_of_a_stream_is_kept() -> None:
    progress = Progress(lambda line: None)
    progress.take({"error": "manifest unknown\n"})
    assert progress.error == "manifest unknown"
