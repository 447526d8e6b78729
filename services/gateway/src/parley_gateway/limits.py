"""How many answers may be open at a time."""

from collections.abc import Callable

from parley_gateway import metrics
from parley_gateway.problems import Problem


class OpenAnswers:
    """Counts answers that are streamed or waited for; refuses beyond ``most``."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = 0

    def enter(self, kind: str) -> Callable[[], None]:
        """Count one more; the function returned ends it, once. Raises ``overloaded``."""
        if self.count >= self._most:
            metrics.REFUSED_ANSWERS.inc()
            raise Problem("overloaded", "Too many answers are open at this gateway.")
        self.count += 1
        gauge = metrics.OPEN_ANSWERS.labels(kind)
        gauge.inc()
        left = False

        def leave() -> None:
            nonlocal left
            if not left:
                left = True
                self.count -= 1
                gauge.dec()

        return leave
