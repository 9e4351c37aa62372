"""Counting requests against rate limits, in windows of the clock's time, in the memory of this process."""

import math
from collections import OrderedDict
from datetime import datetime, timedelta

import msgspec

from sandyard.clock import Clock
from sandyard_api.errors import TooManyRequests
from sandyard_api.rates.limits import Rate, Rates

MAX_COUNTED = 10_000
"""Of so many callers we keep count; of more, whoever was silent the longest begins anew."""

Headers = list[tuple[bytes, bytes]]


class _Window(msgspec.Struct):
    ends: datetime
    count: int = 0


class RateLimits:
    """Counts by bucket and caller. Nothing is counted in a bucket without a limit."""

    def __init__(self, rates: Rates, clock: Clock) -> None:
        self._rates = rates
        self._clock = clock
        self._windows: OrderedDict[tuple[str, str], _Window] = OrderedDict()

    def count(self, bucket: str, caller: str, headers: Headers) -> None:
        """One request more; what to tell the caller is added to `headers`. Raises `TooManyRequests`."""
        rate = self._rates.get(bucket)
        if rate is None:
            return
        window = self._window((bucket, caller), rate)
        window.count += 1
        left = max(0, math.ceil((window.ends - self._clock.now()).total_seconds()))
        headers += [
            _header("X-RateLimit-Limit", bucket, rate.limit),
            _header("X-RateLimit-Remaining", bucket, max(0, rate.limit - window.count)),
            _header("X-RateLimit-Reset", bucket, left),
        ]
        if window.count > rate.limit:
            headers += [(b"retry-after", str(left).encode()), _header("Retry-After", bucket, left)]
            raise TooManyRequests

    def _window(self, key: tuple[str, str], rate: Rate) -> _Window:
        now = self._clock.now()
        window = self._windows.get(key)
        # One that ends too far ahead was begun before the clock was taken back.
        if window is None or not now < window.ends <= now + timedelta(seconds=rate.seconds):
            window = self._windows[key] = _Window(now + timedelta(seconds=rate.seconds))
        self._windows.move_to_end(key)
        if len(self._windows) > MAX_COUNTED:
            self._windows.popitem(last=False)
        return window


def _header(name: str, bucket: str, value: int) -> tuple[bytes, bytes]:
    return f"{name}-{bucket}".lower().encode(), str(value).encode()
