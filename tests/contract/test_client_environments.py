"""`scripts/client-environments`: a release that cannot be had is told by its own reason and keeps no other back."""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from tests.contract.programs import ROOT


@pytest.fixture
def script(tmp_path: Path) -> Any:
    """The script, with a cache and a family of its own: one release that is refused between two that are not."""
    loader = SourceFileLoader("client_environments", str(ROOT / "scripts" / "client-environments"))
    spec = spec_from_loader("client_environments", loader)
    assert spec is not None
    made: Any = module_from_spec(spec)
    # Its dataclass looks its module up by name.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "client_environments", made)
        loader.exec_module(made)
    made.ROOT, made.CACHE = tmp_path, tmp_path / "clients"
    lock = tmp_path / "lock"
    lock.write_text("one")

    def fill(home: Path) -> None:
        (home / "library").write_text(lock.read_text())

    def refuse(home: Path) -> None:
        made.run(["sh", "-c", "echo no such release >&2; exit 3"], home)

    installs = {"fruit-1": fill, "fruit-2": refuse, "fruit-3": fill}
    made.FAMILIES = {"fruit": lambda: [made.Installation(name, [lock], each) for name, each in installs.items()]}
    return made


def test_a_refused_release_keeps_no_other_back_and_has_its_own_reason(script: Any) -> None:
    assert script.main([]) == 0
    there = sorted(str(path.relative_to(script.CACHE)) for path in script.CACHE.rglob("*") if path.is_file())
    assert there == [
        "fruit-1/installed-from",
        "fruit-1/library",
        "fruit-2.missing",
        "fruit-3/installed-from",
        "fruit-3/library",
    ]
    assert (script.CACHE / "fruit-2.missing").read_text() == "sh ended with 3: no such release\n"
    assert script.main(["--strict", "fruit"]) == 1


def test_only_what_comes_from_other_files_is_installed_again(script: Any) -> None:
    script.main([])
    (script.CACHE / "fruit-1" / "library").write_text("changed by hand")
    script.main([])
    assert (script.CACHE / "fruit-1" / "library").read_text() == "changed by hand"
    (script.ROOT / "lock").write_text("two")
    script.main([])
    assert (script.CACHE / "fruit-1" / "library").read_text() == "two"
    assert script.main(["vegetables"]) == 2
