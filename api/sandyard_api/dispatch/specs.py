"""A sandbox's row in the words of runners."""

from collections.abc import Mapping, Sequence

from sandyard.folders import SCHEME
from sandyard_api.jobs.wire import ImageSource, Mount, SandboxSpec, SecretGrant
from sandyard_api.sandboxes.images import owned_images
from sandyard_api.sandboxes.models import Sandbox


def spec_of(
    row: Sandbox,
    *,
    door_secret: str,
    secrets: Sequence[SecretGrant] = (),
    outbound_proxy_url: str | None = None,
    source: ImageSource | None = None,
) -> SandboxSpec:
    """Everything that a runner needs to know of it; what is sealed in the row is given beside it."""
    return SandboxSpec(
        sandbox_id=row.id,
        organization_id=row.organization_id,
        name=row.name,
        door_secret=door_secret,
        image=row.image,
        snapshot=row.snapshot,
        user=row.user,
        env=row.env,
        labels=row.labels,
        region=row.region,
        cpu=row.cpu,
        memory_gib=row.memory_gib,
        disk_gib=row.disk_gib,
        network_block_all=row.network_block_all,
        network_allow_list=_listed(row.network_allow_list),
        domain_allow_list=_listed(row.domain_allow_list),
        secrets=tuple(secrets),
        outbound_proxy_url=outbound_proxy_url,
        entrypoint=tuple(row.entrypoint) if row.entrypoint else None,
        source=source,
        owned_images=owned_images(row),
        mounts=tuple(map(_mount, row.volumes)),
        was_warm=row.claimed_at is not None,
    )


def _mount(entry: Mapping[str, str]) -> Mount:
    key, path, subpath = entry["volumeId"], entry["mountPath"], entry.get("subpath", "")
    if key.startswith(SCHEME):
        return Mount(path, host_folder=key.removeprefix(SCHEME), subpath=subpath)
    return Mount(path, volume_id=key, subpath=subpath)


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
