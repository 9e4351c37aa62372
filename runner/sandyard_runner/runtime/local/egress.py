"""The way out of sandboxes in namespaces: rules in their own network namespace, put there from outside.

As root the namespace belongs to the machine's user namespace and not to the sandbox's: nobody inside may change what is
set here. Otherwise it belongs to the sandbox's, where only root could; lists are then refused for a sandbox of root.
"""

import asyncio
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import structlog

from sandyard_runner.egress.names import Client
from sandyard_runner.egress.nft import run_nft
from sandyard_runner.egress.policy import Policy
from sandyard_runner.egress.services import Services, Sockets, environment
from sandyard_runner.errors import RuntimeFailure, Unsupported

log = structlog.get_logger(__name__)

ADDRESS = "127.83.89.1"
"""Of our services in each sandbox's namespace: loopback, and nobody else's."""
NAMES_PORT, PROXY_PORT = 53, 3128
TABLE = "inet sandyard"
HELPER_SECONDS = 30.0
INTO = Path(__file__).with_name("into.py")
BUNDLE_NAME = "certificates.pem"
DOOR_MOUNT = "/run/sandyard"
BIND = f"""
import socket, sys
channel = socket.socket(fileno=int(sys.argv[1]))
made = [socket.socket(type=kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_STREAM)]
for each, port in zip(made, ({NAMES_PORT}, {NAMES_PORT}, {PROXY_PORT})):
    each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    each.bind(("{ADDRESS}", port))
socket.send_fds(channel, [b"x"], [each.fileno() for each in made])
"""


class Held(msgspec.Struct):
    """What holds for the present run of one sandbox."""

    policy: Policy | None
    """`None`: whatever an earlier process of ours left."""
    mark: int = 0
    stack: AsyncExitStack = msgspec.field(default_factory=AsyncExitStack)
    is_serving: bool = False


class LocalEgress:
    """Holds policies of sandboxes, each given by its id and the number of a process of its namespaces."""

    def __init__(self, data_dir: Path, doors_dir: Path, name_servers: tuple[str, ...]) -> None:
        self._services = Services(data_dir / "egress", name_servers)
        self._doors_dir = doors_dir
        self._held: dict[str, Held] = {}

    def begin(self, sandbox_id: str) -> None:
        """A new run, in a namespace without rules."""
        self._held[sandbox_id] = Held(Policy())

    async def hold(self, sandbox_id: str, pid: int, policy: Policy) -> Mapping[str, str]:
        """Hold the lists and secrets. Raises `RuntimeFailure`."""
        held = self._held.setdefault(sandbox_id, Held(None))
        if held.policy != policy:
            if policy.needs_services and not held.is_serving:
                await self._serve(sandbox_id, pid, held)
            await self._write_rules(pid, policy, held)
            if policy.secrets:
                await asyncio.to_thread(self._write_bundle, sandbox_id)
            held.policy = policy
        return environment(policy, f"http://{ADDRESS}:{PROXY_PORT}", f"{DOOR_MOUNT}/{BUNDLE_NAME}")

    async def forget(self, sandbox_id: str) -> None:
        """Its run is over, and its namespace with it."""
        held = self._held.pop(sandbox_id, None)
        if held is not None:
            await held.stack.aclose()

    async def close(self) -> None:
        """End the services; rules stay, and close what these opened."""
        for sandbox_id in list(self._held):
            await self.forget(sandbox_id)

    async def _write_rules(self, pid: int, policy: Policy, held: Held) -> None:
        was_listed = held.policy is None or held.policy.is_listed
        if shutil.which("nft") is None:
            if policy.is_listed:
                raise Unsupported("network rules need nft, which is not installed")
        elif policy.is_listed or was_listed:
            mark = secrets.randbits(30) | 1
            await run_nft(rules(policy, mark), inside=inside(pid))
            held.mark = mark

    async def _serve(self, sandbox_id: str, pid: int, held: Held) -> None:
        def find(_: str) -> Client | None:
            return None if held.policy is None else Client(held.policy, lambda found: self._admit(pid, held, found))

        sockets = await _bind_inside(pid)
        await held.stack.enter_async_context(self._services.serving(sockets, find))
        held.is_serving = True
        log.info("egress_serving", sandbox_id=sandbox_id)

    async def _admit(self, pid: int, held: Held, found: list[tuple[str, int]]) -> None:
        if held.policy is None or not held.policy.is_listed:
            return
        place = f"element {TABLE} names"
        lines = []
        for address, seconds in found:
            # Adding what is there changes nothing, not even its time.
            lines += [f"add {place} {{ {address} }}", f"delete {place} {{ {address} }}"]
            lines.append(f"add {place} {{ {address} timeout {seconds}s }}")
        await run_nft("\n".join(lines) + "\n", inside=inside(pid))

    def _write_bundle(self, sandbox_id: str) -> None:
        path = self._doors_dir / sandbox_id / BUNDLE_NAME
        scratch = path.with_suffix(".new")
        scratch.unlink(missing_ok=True)  # whatever it is: root inside may write here, too
        with scratch.open("x", encoding="utf-8") as file:
            file.write(self._services.authority.bundle())
        scratch.chmod(0o644)
        scratch.replace(path)


def rules(policy: Policy, mark: int) -> str:
    """The nftables script for a sandbox's own namespace; without lists it takes the rules away.

    Connections outlive the time to live of the name that led there; those that other rules allowed end.
    """
    clear = f"table {TABLE} {{}}\ndelete table {TABLE}\n"
    if not policy.is_listed:
        return clear
    networks = f"ip daddr {{ {', '.join(policy.networks)} }} accept" if policy.networks else ""
    names = f"dnat ip to {ADDRESS}:{NAMES_PORT}"
    led = f"udp dport 53 {names}\n    tcp dport 53 {names}" if policy.domains else ""
    return f"""{clear}
table {TABLE} {{
  set names {{ type ipv4_addr; flags timeout; }}
  chain names_out {{
    type nat hook output priority -100; policy accept;
    {led}
  }}
  chain output {{
    type filter hook output priority 0; policy accept;
    oifname "lo" accept
    ip daddr 127.0.0.0/8 accept
    ct mark {mark} ct state established,related accept
    ip daddr @names ct mark set {mark} accept
    {networks}
    drop
  }}
}}
"""


def inside(pid: int) -> list[str]:
    """The command line that runs a program in the network namespace of a process, with power over it."""
    if os.geteuid() == 0:
        return ["nsenter", f"--target={pid}", "--net", "--"]
    return [sys.executable, "-I", "-S", str(INTO), str(pid)]


async def _bind_inside(pid: int) -> Sockets:
    """Sockets of the sandbox's namespace for a server out here. Raises `RuntimeFailure`."""
    ours, theirs = socket.socketpair()
    try:
        process = await asyncio.create_subprocess_exec(
            *inside(pid),
            *(sys.executable, "-I", "-S", "-c", BIND, str(theirs.fileno())),
            pass_fds=[theirs.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(HELPER_SECONDS):
                _, said = await process.communicate()
        except TimeoutError as error:
            process.kill()
            await process.wait()
            raise RuntimeFailure("our services in the sandbox's network do not come up") from error
        if process.returncode:
            lines = said.decode(errors="replace").strip().splitlines() or ["no reason given"]
            raise RuntimeFailure(f"our services cannot listen in the sandbox's network: {lines[-1]}")
        _, found, _, _ = socket.recv_fds(ours, 1, 3)
    finally:
        ours.close()
        theirs.close()
    made = [socket.socket(fileno=number) for number in found]
    for each in made:
        each.setblocking(False)
    return Sockets(*made)
