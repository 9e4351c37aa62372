"""What the local runtime enforces, as the table that users see."""

import os
import shutil
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from sandyard_runner.runtime.local.network import Uplink
from sandyard_runner.runtime.local.options import Isolation, LocalOptions, Network
from sandyard_runner.wire import Capability, Enforcement

_WITHOUT_GROUP = "no control group is delegated to us"


def capability_table(options: LocalOptions, limited: AbstractSet[str], uplink: Uplink | None) -> list[Capability]:
    """One row per promise; `limited` are the control group's controllers that hold."""
    is_isolated = options.isolation is Isolation.NAMESPACES
    rows = [
        _limit("cpu", "cpu" in limited, "quota in cores"),
        _limit("memory", "memory" in limited, "limit in GiB; a process beyond it is killed"),
        _limit("processes", "pids" in limited, "at the most 4096"),
        Capability("disk", Enforcement.IGNORED, "files live on the host's disk"),
        _images(options),
        _filesystem(is_isolated),
        _network(options, is_isolated, uplink),
        _internet(options, is_isolated, uplink),
        _block_all(is_isolated),
        Capability("links", Enforcement.REFUSED, "its sandboxes' networks cannot be joined; the docker runtime's can"),
        *_lists(is_isolated, options),
        _user(is_isolated),
        _volumes(is_isolated),
    ]
    kept = "what the sandbox wrote, as a copy; neither processes nor memory"
    if not is_isolated:
        kept = "the sandbox's home, as a copy; neither processes, memory nor files elsewhere"
    return [*rows, _pause(limited), _resize(limited)] + [
        Capability(name, Enforcement.ENFORCED, kept) for name in ("fork", "snapshot", "archive")
    ]


def _images(options: LocalOptions) -> Capability:
    if options.local_builds:
        detail = "FROM is ignored: the steps of Dockerfiles run over this machine's own programs (--local-builds)"
        return Capability("images", Enforcement.IGNORED, detail)
    return Capability("images", Enforcement.REFUSED, "sandboxes show this machine's own programs")


def _pause(limited: AbstractSet[str]) -> Capability:
    how = "its control group is frozen" if limited else "each of its processes gets SIGSTOP, which the process may see"
    return Capability("pause", Enforcement.ENFORCED, f"{how}; ends with Sandyard unless sandboxes run on")


def _resize(limited: AbstractSet[str]) -> Capability:
    if {"cpu", "memory"} <= limited:
        return Capability("resize", Enforcement.ENFORCED, "CPU and memory by control group; disk as above")
    return Capability("resize", Enforcement.REFUSED, _WITHOUT_GROUP)


def _volumes(is_isolated: bool) -> Capability:
    if is_isolated:
        detail = "folders of this machine, mounted; not in forks, snapshots and archives"
        return Capability("volumes", Enforcement.ENFORCED, detail)
    return Capability("volumes", Enforcement.REFUSED, "nothing can be mounted without namespaces")


def _limit(name: str, is_enforced: bool, detail: str) -> Capability:
    if is_enforced:
        return Capability(name, Enforcement.ENFORCED, detail)
    return Capability(name, Enforcement.IGNORED, _WITHOUT_GROUP)


def _filesystem(is_isolated: bool) -> Capability:
    name = "filesystem_isolation"
    if not is_isolated:
        return Capability(name, Enforcement.IGNORED, "sandboxes see and change the host's files as the user running us")
    if os.geteuid() == 0:
        return Capability(name, Enforcement.ENFORCED, "own root; the host's /usr, /etc, /opt under a writable layer")
    detail = "own root; of the host's /usr, /etc, /opt only new files can be written"
    return Capability(name, Enforcement.ENFORCED, detail)


def _network(options: LocalOptions, is_isolated: bool, uplink: Uplink | None) -> Capability:
    name = "network_isolation"
    if not is_isolated:
        return Capability(name, Enforcement.IGNORED, "sandboxes use the host's network")
    if options.network is Network.HOST:
        return Capability(name, Enforcement.IGNORED, "sandboxes use the host's network, as was asked for")
    if uplink is None:
        return Capability(name, Enforcement.ENFORCED, "own network, loopback only")
    blocked = "the host's addresses, container networks and link-local addresses cannot be reached"
    return Capability(name, Enforcement.ENFORCED, f"own network, out through {uplink.name}; {blocked}")


def _internet(options: LocalOptions, is_isolated: bool, uplink: Uplink | None) -> Capability:
    if not is_isolated or options.network is Network.HOST:
        return Capability("internet", Enforcement.ENFORCED, "as the host")
    if uplink is not None:
        return Capability("internet", Enforcement.ENFORCED, f"through {uplink.name}, IPv4")
    if options.network is Network.NONE:
        return Capability("internet", Enforcement.REFUSED, "loopback only, as was asked for")
    detail = "sandboxes have loopback only: install slirp4netns or passt, or give them the host's with --network host"
    return Capability("internet", Enforcement.IGNORED, detail)


def _lists(is_isolated: bool, options: LocalOptions) -> Sequence[Capability]:
    names = ("network_allow_list", "domain_allow_list", "secrets", "outbound_proxy")
    if not is_isolated or options.network is Network.HOST:
        why = "sandboxes have no network of their own"
        return [Capability(name, Enforcement.REFUSED, why) for name in names]
    if shutil.which("nft") is None:
        lists = [Capability(name, Enforcement.REFUSED, "needs nft, which is not installed") for name in names[:2]]
    else:
        whom = "also for root inside" if os.geteuid() == 0 else "refused for a sandbox of root, who could change it"
        detail = f"IPv4, in the sandbox's network namespace from outside; {whom}"
        lists = [Capability(name, Enforcement.ENFORCED, detail) for name in names[:2]]
    detail = "HTTP/1.1 and HTTP/2 of clients that use the proxy and certificate variables; the value never enters"
    proxied = "HTTP of clients that use the proxy variables; with a domain list there is no other way out"
    return [
        *lists,
        Capability(names[2], Enforcement.ENFORCED, detail),
        Capability(names[3], Enforcement.ENFORCED, proxied),
    ]


def _block_all(is_isolated: bool) -> Capability:
    if is_isolated:
        return Capability("network_block_all", Enforcement.ENFORCED, "loopback only")
    return Capability("network_block_all", Enforcement.REFUSED, "there is no network of its own to close")


def _user(is_isolated: bool) -> Capability:
    if not is_isolated:
        return Capability("user", Enforcement.REFUSED, "sandboxes run as the user that runs Sandyard")
    if os.geteuid() == 0:
        return Capability("user", Enforcement.ENFORCED, "any user of the sandbox; daytona by default")
    return Capability("user", Enforcement.ENFORCED, "one user per sandbox, daytona by default; no sudo")
