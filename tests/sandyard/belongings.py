"""Every kind of file that a sandbox may have, made inside it, and a fingerprint of them that is taken inside it."""

import base64
import json
from typing import Any

from tests.contract.toolbox import Toolbox

SPARSE_BYTES = 300 << 20
HOLDS_ALL = ("user.note", "security.capability")

MAKE = r"""
import os, struct
os.makedirs(b"/srv/kept/work/deep/below", exist_ok=True)
os.chdir(b"/srv/kept")
open("random", "wb").write(os.urandom(100_000)); os.chmod("random", 0o600); os.chown("random", 1234, 2345)
open("tool", "wb").write(b"#!/bin/sh\n"); os.chmod("tool", 0o6755)
os.symlink("random", "link"); os.symlink("/nowhere/at/all", "dangling"); os.lchown("link", 11, 12)
os.link("random", "hard")
with open("sparse", "wb") as file:
    file.write(b"begin"); file.seek(SPARSE - 3); file.write(b"end")
open(b"caf\xe9-\xff\n\x01", "wb").write(b"a name that is no text")
open("run.json", "wb").write(b"{}"); open("work/deep/below/file", "wb").write(b"deep")
os.mkdir("closed", 0o700); os.chown("closed", 1234, 2345); open("closed/in", "wb").write(b"in")
os.mkdir("sticky"); os.chmod("sticky", 0o1777); os.mkdir("empty"); os.chmod("empty", 0o2750)
os.mkfifo("fifo", 0o640)
values = {"user.note": b"\x00\xff=\n", "security.capability": struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)}
for name in XATTRS:
    os.setxattr("tool", name, values[name])
for top, names, files in os.walk("/usr/share/base-files", topdown=False):
    for name in files: os.unlink(os.path.join(top, name))
    for name in names: os.rmdir(os.path.join(top, name))
os.makedirs("/usr/share/base-files/new")
os.unlink("/etc/debian_version")
for name in sorted(os.listdir(b".")):
    os.utime(name, (1_000_000_000, 1_000_000_001), follow_symlinks=False)
"""

TELL = r"""
import hashlib, json, os, stat
told = {}
for top, names, files in os.walk(b"/srv/kept"):
    for path in [top] + [os.path.join(top, name) for name in names + files]:
        facts = os.lstat(path)
        one = [oct(facts.st_mode), facts.st_uid, facts.st_gid]
        if not stat.S_ISDIR(facts.st_mode):
            one += [facts.st_nlink, facts.st_size, int(facts.st_mtime)]
        if stat.S_ISLNK(facts.st_mode):
            one.append(repr(os.readlink(path)))
        else:
            one.append({name: repr(os.getxattr(path, name)) for name in os.listxattr(path) if name in XATTRS})
        if stat.S_ISREG(facts.st_mode):
            one.append(hashlib.sha256(open(path, "rb").read()).hexdigest())
        told[repr(path)] = one
told["gone"] = [os.path.exists("/etc/debian_version"), os.listdir("/usr/share/base-files")]
told["same"] = os.path.samefile("/srv/kept/random", "/srv/kept/hard")
print(json.dumps(told, sort_keys=True))
"""


def make(toolbox: Toolbox, xattrs: tuple[str, ...]) -> dict[str, Any]:
    """Make them as the sandbox's root, and tell of them."""
    _python(toolbox, MAKE, xattrs)
    made = fingerprint(toolbox, xattrs)
    assert made["gone"] == [False, ["new"]]
    assert made["same"] is True
    assert sorted(made[repr(b"/srv/kept/tool")][-2]) == sorted(xattrs)
    assert len(made) > 18
    return made


def fingerprint(toolbox: Toolbox, xattrs: tuple[str, ...]) -> dict[str, Any]:
    """Path to kind, modes, owner, links, size, time, attributes and content of each; what is gone of the image."""
    told: dict[str, Any] = json.loads(_python(toolbox, TELL, xattrs))
    return told


def _python(toolbox: Toolbox, program: str, xattrs: tuple[str, ...]) -> str:
    whole = f"SPARSE = {SPARSE_BYTES}\nXATTRS = {xattrs!r}\n{program}"
    coded = base64.b64encode(whole.encode()).decode()
    command = f"""python3 -c 'import base64; exec(base64.b64decode("{coded}"))'"""
    answer = toolbox.call("POST", "/process/execute", {"command": command, "timeout": 50}).json()
    assert answer["exitCode"] == 0, answer
    return str(answer["result"])
