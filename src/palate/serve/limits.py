"""How often a key may call: a bucket of tokens for each."""

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_BUCKETS = 100_000  # the longest unused ones are forgotten, which is the same as full


class RateLimit:
    """Buckets that fill at a steady rate."""

    def __init__(
        self, *, per_minute: int, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with full buckets of the size `burst`; the clock is in seconds."""
        self.per_minute = per_minute
        self._rate = per_minute / 60.0
        self._burst = float(burst)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, *, n: int = 1) -> float:
        """Zero if the call may go on, which then takes `n`, else the seconds until it may."""
        now = self._clock()
        level, since = self._buckets.pop(name, (self._burst, now))
        level = min(self._burst, level + (now - since) * self._rate)
        is_free = level >= 1.0
        self._buckets[name] = (level - n if is_free else level, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return 0.0 if is_free else (1.0 - level) / self._rate
