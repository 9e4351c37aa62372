"""The telemetry operations of the public API that are there."""

from datetime import datetime

from litestar import get
from litestar.di import NamedDependency as Given

from sandyard_api.access import AnyRequest
from sandyard_api.errors import BadRequest
from sandyard_api.jobs.wire import KeyGrant
from sandyard_api.metrics.schemas import MetricsResponse
from sandyard_api.metrics.service import Metrics
from sandyard_api.queries import Query
from sandyard_api.routing import Slice


@get("/{sandbox_ref:str}/telemetry/metrics")
async def read(
    request: AnyRequest, metrics: Given[Metrics], grant: Given[KeyGrant], key: Given[str]
) -> MetricsResponse:
    """getSandboxMetrics"""
    query = Query(request.scope["query_string"])
    since, until = _moment(query, "from"), _moment(query, "to")
    names = query.texts("metricNames")
    return MetricsResponse(await metrics.series(grant.organization_id, key, names, since=since, until=until))


def _moment(query: Query, name: str) -> datetime:
    if (moment := query.time(name)) is None:
        raise BadRequest(f"{name} must be a valid ISO 8601 date string")
    return moment


SLICE = Slice("/api/sandbox", [read])
