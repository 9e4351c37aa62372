"""Rate limits as a value. Imports nothing of ours."""

from collections.abc import Mapping

import msgspec

BUCKETS = ("anonymous", "failed-auth", "authenticated", "sandbox-create", "sandbox-lifecycle")
"""What is counted apart. *Source:* control-plane.md 1.3."""


class Rate(msgspec.Struct, frozen=True):
    """So many requests in so many seconds."""

    limit: int
    seconds: int


Rates = Mapping[str, Rate]
"""By bucket; one that is missing has no limit."""


def parse_rates(text: str) -> dict[str, Rate]:
    """`authenticated=300/60,sandbox-create=10/60`: requests by seconds. Raises `ValueError`."""
    rates: dict[str, Rate] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        bucket, _, rate = part.partition("=")
        limit, _, seconds = rate.partition("/")
        is_whole = limit.strip().isdecimal() and seconds.strip().isdecimal()
        if bucket.strip() not in BUCKETS or not is_whole or int(limit) < 1 or int(seconds) < 1:
            raise ValueError(f"{part!r} is not BUCKET=REQUESTS/SECONDS, with a bucket of {', '.join(BUCKETS)}")
        rates[bucket.strip()] = Rate(int(limit), int(seconds))
    return rates
