"""Every refusal of the session service, with its status and stable code.

The codes are those of docs/api; what a program acts on (a run's id, counts) is in
the metadata. Details are sentences for people and never hold prompt text.
"""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from parley_kit.errors import FieldError, ServiceError

# Seconds after which trying again makes sense.
RETRY_STORE = 2.0
RETRY_ENGINE = 5.0
RETRY_OVERLOADED = 2.0


def unauthenticated(detail: str) -> ServiceError:
    """Who asks is missing from the metadata."""
    return ServiceError(grpc.StatusCode.UNAUTHENTICATED, "unauthenticated", detail)


def not_found(what: str) -> ServiceError:
    """There is no such thing for this caller; `what` is chat, run or message."""
    return ServiceError(grpc.StatusCode.NOT_FOUND, "not_found", f"there is no such {what}")


def invalid(fields: Sequence[FieldError]) -> ServiceError:
    """Bounds are broken; each field is named by its path in docs/api."""
    detail = "; ".join(f"{item.field}: {item.message}" for item in fields)
    return ServiceError(grpc.StatusCode.INVALID_ARGUMENT, "invalid_request", detail, fields=fields)


def invalid_field(field: str, message: str) -> ServiceError:
    """One field breaks its bounds."""
    return invalid((FieldError(field, message),))


def model_not_found(model: str) -> ServiceError:
    """The fleet serves no such model."""
    return ServiceError(
        grpc.StatusCode.NOT_FOUND, "model_not_found", f"no engine serves the model {model!r}"
    )


def model_not_allowed(model: str) -> ServiceError:
    """Only engines outside the operator's own fleet serve it, and the tenant may use none."""
    return ServiceError(
        grpc.StatusCode.PERMISSION_DENIED,
        "model_not_allowed",
        f"only engines outside the operator's own fleet serve the model {model!r}, "
        "and what you ask must not leave it",
    )


def idempotency_key_reused() -> ServiceError:
    """The key stands for another request."""
    return ServiceError(
        grpc.StatusCode.ALREADY_EXISTS,
        "idempotency_key_reused",
        "the key was used with another method, path or body",
    )


def run_in_progress(run_id: str) -> ServiceError:
    """The chat's one answer is being made."""
    return ServiceError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "run_in_progress",
        "an answer is being made in this chat",
        metadata={"run_id": run_id},
    )


def queue_full(waiting: int) -> ServiceError:
    """As many turns wait in the chat as may."""
    return ServiceError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "queue_full",
        f"{waiting} messages wait to be answered in this chat",
        retry_after=RETRY_OVERLOADED,
    )


def share_full() -> ServiceError:
    """As many runs of the user wait for the fleet as may."""
    return ServiceError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "queue_full",
        "as many of your messages wait to be answered as may",
        retry_after=RETRY_OVERLOADED,
    )


def line_full() -> ServiceError:
    """As many runs wait for the fleet as may."""
    return overloaded("as many messages wait to be answered as may")


def context_too_long(prompt_tokens: int, context_length: int, max_tokens: int) -> ServiceError:
    """Prompt and answer do not fit the model's window."""
    return ServiceError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "context_too_long",
        f"the prompt needs {prompt_tokens} tokens and the answer up to {max_tokens}, "
        f"but the model's context is {context_length} tokens",
        metadata={
            "prompt_tokens": str(prompt_tokens),
            "context_length": str(context_length),
            "max_tokens": str(max_tokens),
        },
    )


def overloaded(detail: str) -> ServiceError:
    """No room now, anywhere."""
    return ServiceError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded", detail, retry_after=RETRY_OVERLOADED
    )


def engine_unavailable() -> ServiceError:
    """No engine is ready."""
    return ServiceError(
        grpc.StatusCode.UNAVAILABLE,
        "engine_unavailable",
        "no engine is ready to answer",
        retry_after=RETRY_ENGINE,
    )


def store_unavailable() -> ServiceError:
    """The durable store is away."""
    return ServiceError(
        grpc.StatusCode.UNAVAILABLE,
        "store_unavailable",
        "chats cannot be read or stored at the moment",
        retry_after=RETRY_STORE,
    )


def moved() -> ServiceError:
    """This replica is stopping, or has no room: the same call is served by another one.

    The code is the transport's own: whoever calls goes elsewhere.
    """
    return ServiceError(
        grpc.StatusCode.UNAVAILABLE, "unavailable", "this replica is stopping; ask another one"
    )


def engine_lost(detail: str) -> ServiceError:
    """An answer that has begun cannot be continued."""
    return ServiceError(grpc.StatusCode.ABORTED, "engine_lost", detail)


def bad_event_id() -> ServiceError:
    """A reader's position is inside a character, or beyond the end."""
    return ServiceError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "bad_event_id",
        "the position is inside a character or beyond the end of the answer",
    )
