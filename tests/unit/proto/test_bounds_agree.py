"""What one service lets in, the next one takes: bounds that are checked twice are the same.

A request that the gateway accepts and a service behind it refuses would be refused
after its turn was stored.
"""

from parley_gateway import bounds as gateway
from parley_inference import bounds as inference
from parley_inference import schema_bounds
from parley_session.context import builder
from parley_session.domain import bounds as session
from parley_session.domain import options


def test_gateway_and_session_agree() -> None:
    pairs = {
        "message": (gateway.MAX_MESSAGE_BYTES, session.MAX_MESSAGE_BYTES),
        "system": (gateway.MAX_SYSTEM_BYTES, session.MAX_SYSTEM_BYTES),
        "title": (gateway.MAX_TITLE_CHARACTERS, session.MAX_TITLE_CHARACTERS),
        "model": (gateway.MAX_MODEL_CHARACTERS, session.MAX_MODEL_CHARACTERS),
        "ttlSeconds": (gateway.MAX_TTL_SECONDS, session.MAX_TTL_SECONDS),
        "chats": (gateway.MAX_CHATS, session.MAX_LISTED_CHATS),
        "messages": (gateway.MAX_MESSAGES, session.MAX_LISTED_MESSAGES),
        "maxTokens": (gateway.MAX_TOKENS, options.MAX_MAX_TOKENS),
        "topK": (gateway.MAX_TOP_K, options.MAX_TOP_K),
        "seed": (gateway.MAX_SEED, options.MAX_SEED),
        "stops": (gateway.MAX_STOPS, options.MAX_STOPS),
        "stop": (gateway.MAX_STOP_CHARACTERS, options.MAX_STOP_CHARACTERS),
        "responseFormat": (gateway.MAX_SCHEMA_BYTES, options.MAX_JSON_SCHEMA_BYTES),
        "historyTurns": (gateway.MAX_HISTORY_TURNS, options.MAX_HISTORY_TURNS),
        "timeoutSeconds": (gateway.MAX_TIMEOUT_SECONDS, options.MAX_TIMEOUT_SECONDS),
    }
    assert {name: pair for name, pair in pairs.items() if pair[0] != pair[1]} == {}


def test_inference_takes_what_session_sends() -> None:
    assert inference.MAX_STOPS >= options.MAX_STOPS
    assert inference.MAX_STOP_CHARACTERS >= options.MAX_STOP_CHARACTERS
    assert schema_bounds.MAX_SCHEMA_BYTES >= options.MAX_JSON_SCHEMA_BYTES
    assert schema_bounds.MAX_SCHEMA_DEPTH >= gateway.MAX_SCHEMA_DEPTH
    assert inference.MAX_COUNTED_MESSAGES >= builder.MAX_COUNTED_MESSAGES
