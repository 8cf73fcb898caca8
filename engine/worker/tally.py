"""What a worker counts between two messages to its coordinator.

Rules of this file:
1. Counting costs well under a microsecond per request; latencies are rounded to three digits and counted by value.
2. Only successes have a latency: failures are never mixed into percentiles.
"""

from engine.wire.messages import Tally


class TallyBook:
    """Counters since the last ``take``."""

    def __init__(self) -> None:
        self.first_success = False
        self._reset()

    def _reset(self) -> None:
        self._requests = self._retries = self._throttled = self._replies = self._ok = 0
        self._tokens_in = self._tokens_out = self._charged = 0
        self._measured = self._estimated = self._error = 0
        self._latencies: dict[float, int] = {}

    def count(
        self,
        *,
        repeated: bool,
        replied: bool,
        ok: bool,
        throttled: bool,
        latency_ms: float,
        tokens_in: int,
        tokens_out: int,
        charged: int,
        estimated_in: int = 0,
    ) -> None:
        """One request that ended. ``latency_ms`` is negative where it is no success."""
        self._requests += 1
        self._retries += repeated
        self._replies += replied
        self._throttled += throttled
        self._tokens_in += tokens_in
        self._tokens_out += tokens_out
        self._charged += charged
        if tokens_in > 0 and estimated_in > 0:
            self._measured += tokens_in
            self._estimated += estimated_in
            self._error += abs(estimated_in - tokens_in)
        if ok:
            self._ok += 1
            self.first_success = True
        if latency_ms >= 0.0:
            # Three digits are what the histogram keeps anyway.
            rounded = round(latency_ms, 1) if latency_ms < 100.0 else float(int(latency_ms))
            self._latencies[rounded] = self._latencies.get(rounded, 0) + 1

    def take(
        self, *, in_flight: int, waiting: int, starved_s: float = 0.0, cooldowns: int = 0, trouble: str = ""
    ) -> Tally:
        """What was counted, with how things stand now; counting begins anew."""
        tally = Tally(
            requests=self._requests,
            retries=self._retries,
            throttled=self._throttled,
            replies=self._replies,
            ok_replies=self._ok,
            tokens_in=self._tokens_in,
            tokens_out=self._tokens_out,
            charged_tokens=self._charged,
            measured_in=self._measured,
            estimated_in=self._estimated,
            estimate_error=self._error,
            latencies=list(self._latencies.items()),
            in_flight=in_flight,
            waiting=waiting,
            starved_s=starved_s,
            cooldowns=cooldowns,
            trouble=trouble,
        )
        self._reset()
        return tally
