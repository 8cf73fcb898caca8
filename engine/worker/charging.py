"""What calls cost in the quota: estimated before, corrected by what replies stated, settled after.

Rules of this file:
1. No I/O and no clock. A hostile or missing usage never gives back more than was charged.
2. Where the provider charges by characters when a request arrives, estimates are corrected upward only, and nothing is
   given back.
"""

from typing import Final

from engine.core.estimate import Correction
from engine.core.model import Charge
from engine.core.quota import NO_RATES, RATE_NAMES, Rates, is_too_dear

REMEMBERED_S: Final = 59.0  # a quota's minute, less what a settlement takes to arrive
TOKENS_MAX: Final = 10**9  # no reply's usage is believed beyond this


class Charging:
    """The charges of one worker. ``settles``: whether the provider counts real usage."""

    def __init__(self, *, settles: bool, rates: Rates = NO_RATES) -> None:
        self._settles = settles
        self._rates = rates
        self.has_limits = any(rates)  # whether any call could be too dear
        self._correction = Correction(may_lower=settles)

    def limit(self, rates: Rates) -> None:
        """Other limits hold from now on."""
        self._rates = rates
        self.has_limits = any(rates)

    def charged(self, charge: Charge) -> Charge:
        """A call's charge, its prompt corrected by what is known of this job's prompts."""
        correction = self._correction
        if correction.factor == 1.0:
            return charge
        tokens_in = correction.corrected(charge.tokens_in)
        if _is_sum(charge):
            return Charge(tokens_in, charge.tokens_out, min(tokens_in + charge.tokens_out, TOKENS_MAX))
        return Charge(tokens_in, charge.tokens_out, max(tokens_in, charge.tokens_out))

    def too_dear(self, charge: Charge) -> str:
        """Why a call can never pass, as a sentence; empty where it can."""
        if not is_too_dear(self._rates, charge.tokens, charge.tokens_in, charge.tokens_out):
            return ""
        parts = (0, charge.tokens, charge.tokens_in, charge.tokens_out)
        over = [
            f"{part} tokens, more than the limit of {limit} {name}"
            for part, limit, name in zip(parts, self._rates, RATE_NAMES.values(), strict=True)
            if 0 < limit < part
        ]
        return f"this call alone costs {' and '.join(over)}; it was not sent"

    def settlement(
        self, estimated: Charge, charged: Charge, tokens_in: int, tokens_out: int, *, age_s: float = 0.0
    ) -> tuple[int, int, int]:
        """Tokens to charge in addition (negative: to give back) once usage is known: by the rule, in, and out.

        ``estimated`` is the charge before correction, ``age_s`` how long ago it was made: what the quota has forgotten is
        not given back. All 0 where the reply stated no usage.
        """
        if tokens_in <= 0:
            return 0, 0, 0
        if estimated.tokens_in > 0:
            self._correction.observe(estimated.tokens_in, min(tokens_in, TOKENS_MAX))
        real = min(tokens_in + tokens_out, TOKENS_MAX)
        if self._settles:
            least = 0 if age_s >= REMEMBERED_S else -TOKENS_MAX
            return (
                max(least, real - charged.tokens),
                max(least, min(tokens_in, TOKENS_MAX) - charged.tokens_in),
                max(least, min(tokens_out, TOKENS_MAX) - charged.tokens_out),
            )
        # Only an estimate that was too low is corrected.
        due = tokens_in + charged.tokens_out if _is_sum(charged) else max(tokens_in, charged.tokens_out)
        more_in = max(0, min(tokens_in, TOKENS_MAX) - charged.tokens_in)
        return max(0, min(due, TOKENS_MAX) - charged.tokens), more_in, 0


def _is_sum(charge: Charge) -> bool:
    """Whether prompt and answer are added up, not the larger of them taken."""
    return charge.tokens >= charge.tokens_in + charge.tokens_out
