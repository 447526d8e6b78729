"""Reads a request's JSON body: bounded while it streams in, bounded in time, parsed strictly."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from email.message import Message
from typing import Any, Final, NoReturn

from parley_gateway.problems import Problem

# Fields of one object. The errors of a model that forbids the unknown grow with them.
MAX_MEMBERS: Final = 1000
# Digits of one number: more is not a number that anything here could mean, and
# Python's conversion is quadratic in them.
MAX_DIGITS: Final = 320


def check_media_type(headers: Mapping[str, str]) -> None:
    """Refuse a body that is not plain JSON in UTF-8. Raises ``unsupported_media_type``."""
    given = headers.get("content-type", "")
    parsed = Message()
    parsed["content-type"] = given
    charset = parsed.get_param("charset", "utf-8")
    if (
        not given
        or parsed.get_content_type() != "application/json"
        or not isinstance(charset, str)
        or charset.lower() not in ("utf-8", "utf8")
    ):
        raise Problem("unsupported_media_type", headers={"Accept": "application/json"})
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem("unsupported_media_type", headers={"Accept-Encoding": "identity"})


async def read_body(
    chunks: AsyncIterator[bytes],
    headers: Mapping[str, str],
    *,
    max_bytes: int,
    timeout_seconds: float,
) -> bytes:
    """Read a whole body. Raises ``payload_too_large`` as soon as it is, ``request_timeout``.

    What Content-Length claims refuses early; what arrives decides.
    """
    claimed = headers.get("content-length", "")
    if claimed.isdecimal() and int(claimed[:20]) > max_bytes:
        raise _too_large(max_bytes)
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in chunks:
                body += chunk
                if len(body) > max_bytes:
                    raise _too_large(max_bytes)
    except TimeoutError:
        raise Problem("request_timeout", headers={"Connection": "close"}) from None
    return bytes(body)


def _too_large(max_bytes: int) -> Problem:
    return Problem("payload_too_large", f"The body is larger than {max_bytes} bytes.")


def parse_json(body: bytes) -> Any:
    """Parse strictly: UTF-8, each name once, finite numbers, bounded depth.

    Raises ``malformed_json``. Lone surrogates that escapes make are left for the
    models to refuse, which name the field.
    """
    try:
        return json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_real,
        )
    except UnicodeDecodeError:
        raise Problem("malformed_json", "The body is not UTF-8.") from None
    except json.JSONDecodeError as error:
        # `msg` is the parser's own sentence: it never holds the input.
        raise Problem(
            "malformed_json", f"{error.msg} (line {error.lineno}, column {error.colno})."
        ) from None
    except RecursionError:
        raise Problem("malformed_json", "The body is nested too deeply.") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(pairs) > MAX_MEMBERS:
        raise Problem("malformed_json", f"An object has more than {MAX_MEMBERS} fields.")
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Problem("malformed_json", "An object names a field twice.")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise Problem("malformed_json", f"{name} is not JSON.")


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise Problem("malformed_json", "A number is too long.")
    return int(digits)


def _real(digits: str) -> float:
    if len(digits) > MAX_DIGITS:
        raise Problem("malformed_json", "A number is too long.")
    return float(digits)
