"""A door directory is made anew, whatever the sandbox left in it."""

from pathlib import Path

from sandyard_runner.runtime.docker import door


def test_a_link_left_as_the_secret_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    directory = tmp_path / "doors" / "s"
    directory.mkdir(parents=True)
    (directory / "secret").symlink_to(victim)
    door.prepare(directory, "s3cret")
    assert victim.read_text() == "precious"
    assert [(path.name, path.read_text()) for path in directory.iterdir()] == [("secret", "s3cret")]


def test_a_directory_that_is_itself_a_link_does_not_lead_us_away(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "keep").touch()
    (tmp_path / "doors").mkdir()
    directory = tmp_path / "doors" / "s"
    directory.symlink_to(elsewhere)
    door.prepare(directory, "x")
    assert (elsewhere / "keep").exists()
    assert not directory.is_symlink()


def test_any_user_of_the_sandbox_may_listen_there(tmp_path: Path) -> None:
    door.prepare(tmp_path / "s", "x")
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o777


def test_discarding_twice_is_discarding_once(tmp_path: Path) -> None:
    door.prepare(tmp_path / "s", "x")
    door.discard(tmp_path / "s")
    door.discard(tmp_path / "s")
    assert list(tmp_path.iterdir()) == []
    assert not door.leftovers(tmp_path)
