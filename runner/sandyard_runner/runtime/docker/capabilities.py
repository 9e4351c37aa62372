"""What the docker runtime enforces, as the table that `/_sandyard/capabilities`, `doctor` and the documents show."""

from collections.abc import Sequence

from sandyard_runner.wire import Capability, Enforcement

_KEPT = "files as an image, by commit; neither processes nor memory"


def capabilities(*, rules_problem: str = "", oci_runtime: str | None = None) -> Sequence[Capability]:
    """One row per promise. `rules_problem` says why the network rules do not hold; empty when they do."""
    through = f"containers of the OCI runtime {oci_runtime}" if oci_runtime else "containers"
    return (
        Capability("filesystem_isolation", Enforcement.ENFORCED, f"{through}: a root file system of their own"),
        Capability("cpu", Enforcement.ENFORCED, "CPU quota of the container's cgroup"),
        Capability("memory", Enforcement.ENFORCED, "memory limit of the container's cgroup, no swap on top"),
        Capability("processes", Enforcement.ENFORCED, "process limit of the container's cgroup"),
        Capability(
            "disk", Enforcement.WATCHED, "measured each minute and told in the sandbox's history, not prevented"
        ),
        Capability(
            "images", Enforcement.ENFORCED, "any Linux image of the machine's architecture, pulled when missing"
        ),
        Capability("user", Enforcement.ENFORCED, "the request's user, else the image's"),
        _network(rules_problem),
        Capability("network_block_all", Enforcement.ENFORCED, "no network at all; toolbox and previews keep working"),
        Capability(
            "volumes", Enforcement.ENFORCED, "folders of this machine, mounted; not in forks, snapshots and archives"
        ),
        Capability("links", Enforcement.ENFORCED, "linked sandboxes share a network of their own, without a way out"),
        *_lists(rules_problem),
        Capability("pause", Enforcement.ENFORCED, "the container's cgroup is frozen; memory and connections stay"),
        Capability("resize", Enforcement.ENFORCED, "CPU and memory of running and stopped ones; disk as above"),
        *(Capability(name, Enforcement.ENFORCED, _KEPT) for name in ("fork", "snapshot", "archive")),
    )


def _network(problem: str) -> Capability:
    if problem:
        return Capability(
            "network_isolation",
            Enforcement.IGNORED,
            f"sandboxes cannot reach each other, but can reach addresses of this machine: {problem}",
        )
    return Capability(
        "network_isolation",
        Enforcement.ENFORCED,
        "the internet, but neither other sandboxes, this machine's addresses, link-local nor metadata addresses",
    )


def _lists(problem: str) -> Sequence[Capability]:
    names = ("network_allow_list", "domain_allow_list", "secrets", "outbound_proxy")
    if problem:
        return [Capability(name, Enforcement.REFUSED, problem) for name in names]
    rows = [Capability(names[0], Enforcement.ENFORCED, "IPv4, on the bridge of the engine's machine")]
    rows.append(Capability(names[1], Enforcement.ENFORCED, "by a name server of ours; IPv4"))
    rows.append(Capability(names[2], Enforcement.ENFORCED, SECRETS))
    return [*rows, Capability(names[3], Enforcement.ENFORCED, OUTBOUND_PROXY)]


OUTBOUND_PROXY = "HTTP of clients that use the proxy variables; with a domain list there is no other way out"
SECRETS = "HTTP/1.1 and HTTP/2 of clients that use the proxy and certificate variables; the value never enters"
