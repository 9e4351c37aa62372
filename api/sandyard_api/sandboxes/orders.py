"""Which job a request makes of a sandbox."""

from sandyard_api.jobs.queue import Order
from sandyard_api.jobs.wire import JobKind
from sandyard_api.sandboxes.images import archive_image, fork_image
from sandyard_api.sandboxes.models import Sandbox
from sandyard_api.sandboxes.states import Desired, Observed, Request


def order_of(row: Sandbox, asked: Request) -> Order | None:
    """The job that a request makes of a sandbox in this state; `None` where nothing is to be done."""
    match asked:
        case Request.START if row.observed is Observed.STARTED:
            return None
        case Request.START if row.observed is Observed.PAUSED:
            return Order(JobKind.RESUME)
        case Request.START if row.desired is Desired.ARCHIVED:
            return Order(JobKind.RESTORE, image=archive_image(row.id))
        case Request.NETWORK if row.observed not in (Observed.STARTED, Observed.PAUSED):
            return None
        case Request.ARCHIVE:
            return Order(JobKind.ARCHIVE, image=archive_image(row.id))
        case Request.RECOVER | Request.RECOVER_STOPPED:
            source = row.parent_id if row.image == fork_image(row.id) else None
            stay = asked is Request.RECOVER_STOPPED
            return Order(JobKind.RECOVER, image=row.archive_image, source_id=source, stay_stopped=stay)
        case _:
            return Order(JobKind(asked.value))
