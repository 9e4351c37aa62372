"""That no file operation of the SSH library reaches this machine's own files."""

import asyncssh

from sandyard_proxy.ssh.files import SandboxFiles

HARMLESS = {
    "channel", "connection", "env", "logger",  # what belongs to the conversation
    "convert_attrs", "format_longname",  # pure, but for names, which `format_user` and `format_group` give
    "map_path", "reverse_map_path",  # used by what is replaced only
    "lock", "unlock",  # refused by the library itself
}  # fmt: skip


def test_every_operation_that_the_library_does_on_local_files_is_replaced() -> None:
    inherited = {
        name for name in vars(asyncssh.SFTPServer) if not name.startswith("_") and name not in vars(SandboxFiles)
    }
    assert inherited == HARMLESS
