"""The bounds of everything a caller may send, said once, and the text types that keep them."""

import unicodedata
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

MAX_MESSAGE_BYTES: Final = 256 * 1024
MAX_SYSTEM_BYTES: Final = 32 * 1024
MAX_TITLE_CHARACTERS: Final = 200
MAX_USER_CHARACTERS: Final = 128
MAX_MODEL_CHARACTERS: Final = 200
MAX_TTL_SECONDS: Final = 10 * 365 * 24 * 3600
MAX_TOKENS: Final = 131_072
MAX_TOP_K: Final = 1000
MAX_SEED: Final = 2**63 - 1
MAX_STOPS: Final = 4
MAX_STOP_CHARACTERS: Final = 64
MAX_SCHEMA_BYTES: Final = 16 * 1024
MAX_SCHEMA_DEPTH: Final = 32
MAX_HISTORY_TURNS: Final = 1000
MAX_TIMEOUT_SECONDS: Final = 600
MAX_CURSOR_CHARACTERS: Final = 512
MAX_CHATS: Final = 100
MAX_MESSAGES: Final = 200


class NotNull:
    """Marks a field that may be left out but is not null: absent and null are not the same."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """Refuse null before anything else looks at the value."""
        return core_schema.no_info_before_validator_function(_refuse_null, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """Document the type without null."""
        found = handler(schema)
        choices = [item for item in found.pop("anyOf", []) if item != {"type": "null"}]
        if len(choices) == 1:
            found.update(choices[0])
        elif choices:
            found["anyOf"] = choices
        return found


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("null", "may be left out, but is not null")
    return value


def refuse_unstorable(text: str) -> str:
    """Refuse NUL and lone surrogates, which stores and other languages cannot hold."""
    if "\x00" in text:
        raise PydanticCustomError("nul", "holds a NUL character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError("surrogate", "holds a lone surrogate") from None
    return text


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "is blank")
    return text


def _refuse_controls(text: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise PydanticCustomError("controls", "holds a control character")
    return text


def _at_most_bytes(limit: int) -> AfterValidator:
    def check(text: str) -> str:
        if len(text.encode()) > limit:
            raise PydanticCustomError(
                "too_many_bytes", "is longer than {limit} bytes of UTF-8", {"limit": limit}
            )
        return text

    return AfterValidator(check)


_storable = AfterValidator(refuse_unstorable)
_not_blank = AfterValidator(_refuse_blank)
# What not-blank and storable mean, for the OpenAPI document.
_VISIBLE: Final = {"pattern": r"\S"}
_STORABLE: Final = {"pattern": r"^[^\u0000]*$"}

MessageText = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_MESSAGE_BYTES,
        description="The user's turn: 1 byte to 256 KiB of UTF-8, not blank.",
        json_schema_extra=_VISIBLE,
    ),
    _storable,
    _at_most_bytes(MAX_MESSAGE_BYTES),
    _not_blank,
]
SystemText = Annotated[
    str,
    Field(
        max_length=MAX_SYSTEM_BYTES,
        description="The system prompt: at most 32 KiB of UTF-8.",
        json_schema_extra=_STORABLE,
    ),
    _storable,
    _at_most_bytes(MAX_SYSTEM_BYTES),
]
Title = Annotated[
    str,
    Field(min_length=1, max_length=MAX_TITLE_CHARACTERS, json_schema_extra=_VISIBLE),
    _storable,
    _not_blank,
]
UserID = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_USER_CHARACTERS,
        description="Who asks: 1 to 128 characters, no control characters.",
        json_schema_extra={"pattern": r"^[^\u0000-\u001f\u007f-\u009f]+$"},
    ),
    _storable,
    AfterValidator(_refuse_controls),
]
ModelID = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_MODEL_CHARACTERS,
        description="One that `GET /models` lists.",
        json_schema_extra=_VISIBLE,
    ),
    _storable,
    _not_blank,
]
Stop = Annotated[
    str,
    Field(min_length=1, max_length=MAX_STOP_CHARACTERS, json_schema_extra=_STORABLE),
    _storable,
]
Cursor = Annotated[
    str,
    Field(min_length=1, max_length=MAX_CURSOR_CHARACTERS, pattern=r"^[\x21-\x7e]+$"),
]
