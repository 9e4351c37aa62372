"""What Linux offers, where it does not."""

import ctypes
import errno

import pytest

from sandyard_daemon import linux


def test_a_kernel_that_knows_no_subreapers_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    monkeypatch.setattr(linux, "_prctl", refuse)
    with pytest.raises(OSError, match="PR_SET_CHILD_SUBREAPER") as refused:
        linux.become_subreaper()
    assert refused.value.errno == errno.EINVAL
