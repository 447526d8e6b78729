"""Whose engines may draw a tenant's answers: any, or the operator's own alone.

What a tenant asks is sent to no engine outside of what it is allowed, whatever the fleet has.
Which engines are external they say themselves (``PARLEY_INFERENCE_UPSTREAM_FLEET``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from parley_session.fleet.base import Model


class Engines(StrEnum):
    """Engines by whose they are."""

    ANY = "any"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class EnginePolicy:
    """What tenants are allowed; ``default``: those that are not named."""

    default: Engines = Engines.ANY
    of_tenants: Mapping[str, Engines] = field(default_factory=dict)

    def own_only(self, tenant: str) -> bool:
        """Whether nothing that a tenant asks may leave the operator's own fleet."""
        return self.of_tenants.get(tenant, self.default) is Engines.OWN

    def allows(self, tenant: str, model: Model) -> bool:
        """Whether a model, as an engine serves it, may answer a tenant."""
        return not model.external or not self.own_only(tenant)
