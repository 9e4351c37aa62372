"""What of the host's settings a sandbox does not see."""

from pathlib import Path

from sandyard_runner.runtime.local.tree import hidden_paths


def test_what_others_cannot_read_is_hidden(tmp_path: Path) -> None:
    for path, mode in {
        "hosts": 0o644,
        "key": 0o640,
        "shadow": 0o640,
        "open/plain": 0o644,
        "open/secret": 0o600,
        "open/deep/secret": 0o600,
        "closed/plain": 0o644,
        "unlisted/plain": 0o644,
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        file.chmod(mode)
    (tmp_path / "closed").chmod(0o750)
    (tmp_path / "unlisted").chmod(0o751)
    (tmp_path / "link").symlink_to(tmp_path / "key")
    (tmp_path / "folder").symlink_to(tmp_path / "open")
    (tmp_path / "nowhere").symlink_to("nothing")
    assert hidden_paths(str(tmp_path)) == ["closed", "key", "open/deep/secret", "open/secret", "unlisted"]
