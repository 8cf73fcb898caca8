"""How far estimates of prompts are off, learnt from the usage that replies state.

Rules of this file:
1. Pure sums: nothing here reads a clock, and no single reply moves the correction by much.
2. What a server counts by characters is never estimated lower than by its own rule: it would refuse what we let pass.
"""

LEAST_REPLIES = 5  # before that many nothing is corrected
MEMORY_TOKENS_SHARE = (
    0.98  # an older reply counts so much less with each one after it: about the last fifty matter
)
FACTOR_MIN, FACTOR_MAX = 0.25, 4.0


class Correction:
    """The factor between estimated and real prompt tokens of one job, and the error that is left.

    ``may_lower``: whether estimates may be corrected downward, which only is right where real usage is counted.
    """

    __slots__ = ("_actual", "_estimated", "_may_lower", "_replies", "factor")

    def __init__(self, *, may_lower: bool) -> None:
        self._may_lower = may_lower
        self._estimated = self._actual = 0.0
        self._replies = 0
        self.factor = 1.0

    def corrected(self, tokens: int) -> int:
        """An estimate as it should have been, by what is known."""
        return tokens if self.factor == 1.0 else int(tokens * self.factor + 0.999)

    def observe(self, estimated: int, actual: int) -> None:
        """A reply stated ``actual`` prompt tokens where the uncorrected estimate was ``estimated``; both above 0."""
        # One that lies by far would else outweigh hundreds that are right.
        actual = min(actual, int(FACTOR_MAX * estimated))
        self._estimated = self._estimated * MEMORY_TOKENS_SHARE + estimated
        self._actual = self._actual * MEMORY_TOKENS_SHARE + actual
        self._replies += 1
        if self._replies >= LEAST_REPLIES:
            least = FACTOR_MIN if self._may_lower else 1.0
            self.factor = min(max(self._actual / self._estimated, least), FACTOR_MAX)
