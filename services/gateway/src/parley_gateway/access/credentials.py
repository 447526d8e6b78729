"""From a request's credential to the tenant and user that session is told.

Under ``none`` everybody is the tenant ``default`` and names a user freely. Under
``keys`` a key belongs to a tenant and may be fixed to one user.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from pydantic import TypeAdapter, ValidationError

from parley_gateway.access.keyring import KeyRing
from parley_gateway.bounds import UserID
from parley_gateway.problems import Problem, bad_field

DEFAULT_TENANT: Final = "default"
ANONYMOUS: Final = "anonymous"
USER_HEADER: Final = "X-User-ID"
MAX_AUTHORIZATION_CHARACTERS: Final = 512

_user_id: Final = TypeAdapter[str](UserID)


@dataclass(frozen=True, slots=True)
class Credential:
    """What the request's credential says: a tenant, and perhaps the one user it stands for.

    ``may_act_as_owner``: a call on an existing chat or run that names nobody
    acts as its owner.
    """

    tenant: str
    user: str | None
    may_act_as_owner: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, as session is told. ``as_owner``: as whoever owns what the call names."""

    tenant: str
    user: str
    as_owner: bool = False


class Authenticator(Protocol):
    """Decides who a request comes from."""

    def authenticate(self, authorization: Sequence[str]) -> Credential:
        """Judge the values of the Authorization header. Raises ``unauthenticated``."""


class NoAuthentication:
    """``none``: everybody is welcome; a credential that is sent is not looked at."""

    def authenticate(self, authorization: Sequence[str]) -> Credential:  # noqa: ARG002
        """Return the default tenant."""
        return Credential(DEFAULT_TENANT, None, may_act_as_owner=True)


class KeyAuthentication:
    """``keys``: a Bearer key of the ring."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    def authenticate(self, authorization: Sequence[str]) -> Credential:
        """Return the key's tenant and user. Raises ``unauthenticated``."""
        if len(authorization) != 1 or len(authorization[0]) > MAX_AUTHORIZATION_CHARACTERS:
            raise _unauthenticated()
        scheme, _, key = authorization[0].partition(" ")
        found = self._ring.find(key.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise _unauthenticated()
        return Credential(found.tenant, found.user, may_act_as_owner=False)


def identify(
    credential: Credential,
    *,
    query_user: str | None,
    header_users: Sequence[str],
    body_user: str | None = None,
    existing: bool,
) -> Caller:
    """Decide as whom a call is made.

    Body and query come before the header and must agree. ``existing``: the call
    names a chat or run that exists already. Raises ``invalid_request``,
    ``user_not_allowed``.
    """
    if body_user is not None and query_user is not None and body_user != query_user:
        raise bad_field("userID", "the body and the query name different users")
    header_user = _from_header(header_users)
    named = body_user or query_user
    if credential.user is not None:
        if any(name not in (None, credential.user) for name in (named, header_user)):
            raise Problem("user_not_allowed")
        return Caller(credential.tenant, credential.user)
    user = named or header_user
    if user is not None:
        return Caller(credential.tenant, user)
    return Caller(credential.tenant, ANONYMOUS, as_owner=existing and credential.may_act_as_owner)


def _from_header(values: Sequence[str]) -> str | None:
    """Read X-User-ID: UTF-8, which the server hands over as Latin-1."""
    if not values:
        return None
    if len(values) > 1:
        raise bad_field(USER_HEADER, "given more than once")
    try:
        return _user_id.validate_python(values[0].encode("latin-1").decode("utf-8"))
    except UnicodeError:
        raise bad_field(USER_HEADER, "is not UTF-8") from None
    except ValidationError as error:
        raise bad_field(USER_HEADER, error.errors(include_input=False)[0]["msg"]) from None


def _unauthenticated() -> Problem:
    return Problem("unauthenticated", headers={"WWW-Authenticate": "Bearer"})
