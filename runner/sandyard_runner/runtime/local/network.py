"""The way out of a local sandbox's own network: slirp4netns or pasta, whichever is installed, or a veth pair."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import msgspec

from sandyard_runner.egress.closed import routes
from sandyard_runner.errors import RuntimeFailure
from sandyard_runner.runtime.local import veth

READY_TIMEOUT_SECONDS = 30.0
ROUTE_RECHECK_SECONDS = 0.01
DNS_FORWARDER = "10.0.2.3"
"""The helper's own resolver as the sandbox sees it; slirp4netns has it there by default."""
VETH = "veth"


class Uplink(msgspec.Struct, frozen=True):
    """A helper that carries a network namespace's packets, and how it is started."""

    name: str
    program: str

    def command(self, pid: int, ready: int) -> list[str]:
        """The command line for the namespaces of process `pid`; `ready` is a descriptor to tell readiness on."""
        user_namespace = [] if os.geteuid() == 0 else [f"/proc/{pid}/ns/user"]
        if self.name == "slirp4netns":
            options = ["--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={ready}"]
            options += [f"--userns-path={path}" for path in user_namespace]
            return [self.program, *options, "--netns-type=path", f"/proc/{pid}/ns/net", "tap0"]
        options = ["--config-net", "--no-map-gw", "--foreground", "--quiet", "--ipv4-only"]
        options += [f"--dns-forward={DNS_FORWARDER}"]
        options += ["-t", "none", "-u", "none", "-T", "none", "-U", "none", f"--netns=/proc/{pid}/ns/net"]
        return [self.program, *options, *(f"--userns={path}" for path in user_namespace)]


def find_uplinks() -> list[Uplink]:
    """The helpers this machine has, best first; with none, sandboxes have loopback only."""
    found = ((name, shutil.which(name)) for name in ("slirp4netns", "pasta"))
    uplinks = [Uplink(name, program) for name, program in found if program is not None]
    if os.geteuid() == 0 and veth.can_be_used():
        uplinks.append(Uplink(VETH, "ip"))
    return uplinks


async def connect_uplink(uplink: Uplink, pid: int, *, die_with_parent: bool) -> subprocess.Popen[bytes]:
    """Start the helper for the namespaces of `pid` and wait until packets flow. Raises `RuntimeFailure`."""
    ready_read, ready_write = os.pipe()
    prefix = ["setpriv", "--pdeathsig", "KILL"] if die_with_parent and shutil.which("setpriv") else []
    try:
        helper = subprocess.Popen(  # noqa: S603, ASYNC220  a started program is all we wait for
            [*prefix, *uplink.command(pid, ready_write)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[ready_write],
            start_new_session=True,
        )
    finally:
        os.close(ready_write)
    try:
        if uplink.name == "slirp4netns":
            await _readable(ready_read, READY_TIMEOUT_SECONDS)
            is_ready = os.read(ready_read, 1) == b"1"
        else:
            is_ready = await _has_default_route(pid, helper)
    except TimeoutError:
        is_ready = False
    finally:
        os.close(ready_read)
    if not is_ready:
        helper.kill()
        helper.wait()
        raise RuntimeFailure(f"{uplink.name} could not connect the sandbox's network", recoverable=True)
    return helper


def resolver_configuration(uplink: Uplink | None) -> str:
    """The text of `/etc/resolv.conf` inside."""
    if uplink is None:
        return "# this sandbox has no way out of its network\n"
    if uplink.name == VETH:
        # Nobody forwards queries; the machine's own loopback resolver cannot be reached from there.
        return "\n".join(line for line in _host_resolver() if not line.startswith("nameserver 127.")) + "\n"
    search = [line for line in _host_resolver() if line.startswith(("search ", "options "))]
    return "\n".join([f"nameserver {DNS_FORWARDER}", *search]) + "\n"


def host_resolver_configuration() -> str:
    """The host's own, for sandboxes on the host's network."""
    return "\n".join(_host_resolver()) + "\n"


def _host_resolver() -> Sequence[str]:
    try:
        return Path("/etc/resolv.conf").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


async def _has_default_route(pid: int, helper: subprocess.Popen[bytes]) -> bool:
    """Whether the namespaces of `pid` get a default route. Looked up repeatedly: pasta tells nobody it is ready."""
    async with asyncio.timeout(READY_TIMEOUT_SECONDS):
        while helper.poll() is None:
            if any(line.split()[1] == "00000000" for line in routes(f"/proc/{pid}/net/route")):
                return True
            await asyncio.sleep(ROUTE_RECHECK_SECONDS)
    return False


async def _readable(descriptor: int, timeout_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        async with asyncio.timeout(timeout_seconds):
            await ready.wait()
    finally:
        loop.remove_reader(descriptor)
