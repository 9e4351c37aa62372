"""What clients see of a sandbox's use."""

from datetime import datetime

import msgspec


class DataPoint(msgspec.Struct):
    """One value."""

    timestamp: datetime
    value: float


class Series(msgspec.Struct, rename="camel"):
    """One number over time, oldest first."""

    metric_name: str
    data_points: list[DataPoint]


class MetricsResponse(msgspec.Struct):
    """What was asked for."""

    series: list[Series]
