"""Models that were served once: whose engines are all gone is waited for, not unknown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from parley_session.fleet.base import Model

# Models, a model that engines of both kinds serve counted twice; of more, the ones not
# listed for longest are forgotten.
MAX_KNOWN = 1000


class KnownModels:
    """What engines have listed, whether or not any of them is left; in memory only."""

    def __init__(self) -> None:
        # By name, and whether an engine outside the operator's own fleet said it. Newest last.
        self._known: dict[tuple[str, bool], Model] = {}

    def note(self, models: Iterable[Model]) -> None:
        """Take note of what an engine lists."""
        for model in models:
            key = (model.id, model.external)
            self._known.pop(key, None)
            self._known[key] = model
        while len(self._known) > MAX_KNOWN:
            del self._known[next(iter(self._known))]

    def of(self, name: str) -> Sequence[Model]:
        """Return a model as engines have listed it: none, or one by each kind of engine."""
        found = (self._known.get((name, external)) for external in (False, True))
        return [model for model in found if model is not None]
