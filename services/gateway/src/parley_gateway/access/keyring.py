"""API keys: their form, the file that keeps their hashes, and the ring that is asked.

A key is ``parley_<id>_<secret>``: the id is public and finds the record, the
secret is 256 random bits of which only the SHA-256 is kept. A slow hash is for
secrets that can be guessed; 2^256 values cannot, and every request pays for it.

The file is JSON: ``{"keys": [{"id", "tenant", "user"?, "sha256", "createdAt"}]}``.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from parley_gateway.bounds import UserID

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
_KEY: Final = re.compile(r"parley_([0-9a-f]{16})_([A-Za-z0-9_-]{43})")
_NOBODY: Final = bytes(32)


class BadKeyFile(Exception):
    """The file is no key file; ``str()`` is a sentence that holds no key and no hash."""


class KeyRecord(BaseModel):
    """One key as it is kept."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    tenant: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    user: UserID | None = None
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created_at: Annotated[str, Field(alias="createdAt", max_length=40)]


class _KeyFile(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    keys: list[KeyRecord]


@dataclass(frozen=True, slots=True)
class Known:
    """Whom a key stands for."""

    tenant: str
    user: str | None
    digest: bytes


class KeyRing:
    """The keys that are valid now; ``replace`` swaps all of them at once."""

    def __init__(self, records: Iterable[KeyRecord] = ()) -> None:
        self._known: dict[str, Known] = {}
        self.replace(records)

    def replace(self, records: Iterable[KeyRecord]) -> None:
        """Make these the valid keys."""
        self._known = {
            record.id: Known(record.tenant, record.user, bytes.fromhex(record.sha256))
            for record in records
        }

    def find(self, key: str) -> Known | None:
        """Return whom ``key`` stands for, None where it is not valid."""
        parts = _KEY.fullmatch(key)
        if parts is None:
            return None
        known = self._known.get(parts[1])
        # The comparison is made for an unknown id too: neither it nor the
        # place of the first wrong byte shows in the time taken.
        digest = hashlib.sha256(key.encode()).digest()
        same = hmac.compare_digest(digest, known.digest if known else _NOBODY)
        return known if same else None

    def __len__(self) -> int:
        return len(self._known)


def new_key(tenant: str, user: str | None) -> tuple[str, KeyRecord]:
    """Make a key: what its owner is told once, and what is kept. Raises ValidationError."""
    key_id = secrets.token_hex(8)
    key = f"parley_{key_id}_{secrets.token_urlsafe(32)}"
    record = KeyRecord.model_validate(
        {
            "id": key_id,
            "tenant": tenant,
            "user": user,
            "sha256": hashlib.sha256(key.encode()).hexdigest(),
            "createdAt": datetime.now(UTC).isoformat(timespec="seconds"),
        }
    )
    return key, record


def parse_key_file(text: bytes) -> list[KeyRecord]:
    """Read a key file's bytes. Raises BadKeyFile."""
    if len(text) > MAX_FILE_BYTES:
        raise BadKeyFile(f"is larger than {MAX_FILE_BYTES} bytes")
    try:
        records = _KeyFile.model_validate_json(text).keys
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BadKeyFile(f"{place}: {first['msg']}") from None
    if len({record.id for record in records}) != len(records):
        raise BadKeyFile("names a key id twice")
    return records


def load_key_file(path: Path) -> list[KeyRecord]:
    """Read a key file. Raises BadKeyFile, OSError."""
    with path.open("rb") as file:
        return parse_key_file(file.read(MAX_FILE_BYTES + 1))


def dump_key_file(records: Iterable[KeyRecord]) -> str:
    """Return a key file's text."""
    return (
        json.dumps(
            {"keys": [record.model_dump(by_alias=True, exclude_none=True) for record in records]},
            indent=2,
        )
        + "\n"
    )
