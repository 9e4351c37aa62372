"""Files by the real SDKs through the proxy: Python in all releases (and asynchronous), TypeScript and Go."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.contract.programs import (
    CLIENTS,
    GO_LACKS,
    GO_RELEASES,
    bundle,
    go_flow,
    python_with_sdk,
    run_program,
)
from tests.contract.running import Instance
from tests.contract.test_python_releases import RELEASES
from tests.contract.test_typescript import NAMES
from tests.contract.toolbox import Toolbox

pytestmark = pytest.mark.sdk


@pytest.fixture(scope="session", params=RELEASES)
def saw(sandyard: Instance, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the flow printed with this release."""
    python = python_with_sdk(request.param)
    done = run_program([python, CLIENTS / "python" / "files_flow.py"], sandyard, tmp_path_factory.mktemp("files"))
    assert done.exit_code == 0, done
    made: dict[str, Any] = json.loads(done.text.splitlines()[-1])  # some releases say what they do
    return made


def test_what_goes_up_comes_down_in_every_form_a_release_has(saw: dict[str, Any]) -> None:
    assert saw["bytes"] is True
    assert saw["file"] is True
    assert saw["many"] == saw["many expected"]
    assert saw.get("bulk", [["work/a/1.txt", "one", False], ["nowhere", "", True]]) == [
        ["work/a/1.txt", "one", False],
        ["nowhere", "", True],
    ]
    assert saw.get("stream", True) is True
    assert saw.get("total", [5_120_000]) == [5_120_000]


def test_the_tree_is_shown_and_searched(saw: dict[str, Any]) -> None:
    assert {"a", "new", "file.bin"} <= set(saw["list"])
    assert {"bytes ü.bin", "bytes.bin"} & set(saw["list"])
    assert {"1.txt", "deep"} <= set(saw.get("depth", ["1.txt", "deep"]))
    assert saw["info"] == ["1.txt", 3, False, "-rw-r--r--", "0644"]
    assert saw["mode"] == "0600"
    # Old releases make paths absolute before they send them.
    assert [[_relative(file), *more] for file, *more in saw["find"]] == [["work/a/3.txt", 2, "needle one"]]
    assert [_relative(file) for file in saw["search"]] == ["work/a/1.txt", "work/a/3.txt"]
    assert [[_relative(file), *more] for file, *more in saw["replace"]] == [["work/a/3.txt", True]]
    assert saw["replaced"] == "alpha\npin one\n"


def test_refusals_are_errors_of_the_library_that_say_why(saw: dict[str, Any]) -> None:
    for name in ("upload onto a folder", "download missing", "move onto", "info missing", "delete again"):
        assert saw[name][0].startswith("Daytona"), (name, saw[name])
    assert "director" in saw["upload onto a folder"][1] or "400 Bad Request" in saw["upload onto a folder"][1]
    assert "exists" in saw["move onto"][1]
    assert saw.get("delete folder", ["Daytona"])[0].startswith("Daytona")
    assert saw.get("list deleted", ["Daytona"])[0].startswith("Daytona")


def test_signed_urls_need_no_other_credential_and_die_with_their_key(saw: dict[str, Any]) -> None:
    if "signed upload" not in saw:
        pytest.skip("this release has no signed URLs")
    assert (saw["signed upload"], saw["signed download"]) == (200, "signed")
    assert (saw["signed after rotation"], saw["signed anew"]) == (403, "signed")


def test_the_newest_release_has_the_classes_of_errors(sandyard: Instance, folder: Path) -> None:
    done = run_program([python_with_sdk("newest"), CLIENTS / "python" / "files_flow.py"], sandyard, folder)
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    assert saw["download missing"][0] == "DaytonaFileNotFoundError"
    assert saw["info missing"][0] == "DaytonaFileNotFoundError"
    assert saw["move onto"][0] == "DaytonaConflictError"


def test_the_asynchronous_client_does_all_of_it(sandyard: Instance, folder: Path) -> None:
    done = run_program([python_with_sdk("newest"), CLIENTS / "python" / "files_async_flow.py"], sandyard, folder)
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    assert saw["at once"] is True
    assert saw["bulk"] == [["work/a/1.txt", 3, False], ["nowhere", 0, True], ["work/0.bin", 512_000, False]]
    assert (saw["stream"], saw["info"], saw["find"], saw["search"]) == (5_120_000, "0700", [1], ["work/a/1.txt"])
    assert (saw["replace"], saw["moved"], saw["missing"]) == ([True], "two", "DaytonaFileNotFoundError")
    assert "signature=v1_" in saw["url"]


@pytest.mark.parametrize("name", NAMES)
def test_typescript_does_all_of_it(sandyard: Instance, folder: Path, name: str) -> None:
    source = CLIENTS / "typescript" / "files.ts"
    target = Path("files-" + name.strip("@").replace("/", "-") + ".mjs")
    options = ("--format=esm", "--platform=node", "--bundle", "--packages=external", f"--alias:the-sdk={name}")
    done = run_program(["node", bundle(source, target, *options)], sandyard, folder)
    assert done.exit_code == 0, done
    saw = json.loads(done.text)
    assert saw["bytes"] is True
    assert saw["bulk"] == [["work/a/1.txt", "one", False], ["nowhere", None, True]]
    assert saw.get("stream", True) is True
    assert {"a", "bytes ü.bin", "new"} <= set(saw["list"])
    assert (saw["info"], saw["mode"]) == ("0700", "0640")
    assert saw["find"] == [["work/a/2.txt", 1, "needle here"]]
    assert saw["search"] == ["work/a/1.txt", "work/a/2.txt"]
    assert (saw["replace"], saw["moved"]) == ([True], "pin here\n")
    for refusal in ("onto", "missing", "conflict", "deleted"):
        assert saw[refusal][0].startswith("Daytona"), (refusal, saw[refusal])
    assert saw.get("signedUpload", 200) == 200
    assert saw.get("signedDownload", "signed") == "signed"
    assert saw.get("signedAfterRotation", 403) == 403


def _relative(path: str) -> str:
    return path[path.index("work/") :]


@pytest.mark.parametrize("release", GO_RELEASES)
def test_go_does_all_of_it(sandyard: Instance, shared_toolbox: Toolbox, folder: Path, release: str) -> None:
    saw = go_flow(release, "files", sandyard, folder, shared_toolbox.id, folder)
    assert (saw["home"], saw["bytes"], saw["file"]) == (True, True, "alpha\nneedle one\n")
    assert saw["empty"] == [0, ["DaytonaError", "Failed to read file", 0]], "0 bytes went up, but it cannot read them"
    assert saw["list"] == ["a", "bytes ü.bin", "not", "private"]
    assert saw["info"] == ["1.txt", 3, False, "-rw-r--r--", True]
    assert (saw["private"], saw["mode"]) == ("drwx------", "-rw-------")
    assert [[_last(each["file"]), each["line"], each["content"]] for each in saw["find"]] == [
        ["3.txt", 2, "needle one"]
    ]
    assert [_last(file) for file in saw["search"]["files"]] == ["3.txt", "1.txt", "empty.txt", "yet.txt"]
    assert [[_last(each["file"]), each["success"]] for each in saw["replace"]] == [["3.txt", True], ["nowhere", False]]
    assert saw["replaced"] == saw["moved"] == "alpha\npin one\n"
    for missing in ("missing", "infoMissing", "listMissing", "deletedAgain"):
        assert saw[missing][0] == "DaytonaNotFoundError", missing
        assert "No such file or directory" in saw[missing][1]
    statuses = {
        "uploadOnto": 400,
        "moveOnto": 409,
        "badMode": 400,
        "nobody": 400,
        "badPattern": 400,
        "folderAlone": 400,
    }
    assert {refusal: saw[refusal][2] for refusal in statuses} == statuses
    if release == "0.148":
        assert saw["stream"] == saw["streamMissing"] == GO_LACKS
    else:
        assert (saw["stream"], saw["streamEmpty"]) == (True, 0)
        assert saw["streamMissing"][0] == "DaytonaNotFoundError"


def _last(path: str) -> str:
    return path.rpartition("/")[2]
