"""Names of the images that are made for one sandbox alone, and go with it."""

from sandyard_api.sandboxes.models import Sandbox


def archive_image(sandbox_id: str) -> str:
    """Keeps the files of an archived sandbox."""
    return f"sandyard/archive:{sandbox_id}"


def fork_image(sandbox_id: str) -> str:
    """The files that a fork began with, by the fork's own id."""
    return f"sandyard/fork:{sandbox_id}"


def owned_images(row: Sandbox) -> tuple[str, ...]:
    """Those that the sandbox may have; the later ones may stand on the earlier."""
    archive = (archive_image(row.id),) if row.auto_delete_minutes != 0 or row.archive_image else ()
    return (*archive, *((fork_image(row.id),) if row.parent_id else ()))
