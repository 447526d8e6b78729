"""The refusals and failures of this service, as ``proto/parley/inference/v1`` names them."""

import grpc

from parley_kit.errors import FieldError, ServiceError


def invalid(*fields: FieldError) -> ServiceError:
    """The request breaks a bound."""
    return ServiceError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "invalid_request",
        "; ".join(f"{field.field}: {field.message}" for field in fields[:4]),
        fields=fields,
    )


def context_too_long(prompt_tokens: int, max_tokens: int, context_length: int) -> ServiceError:
    """Prompt and answer do not fit. ``prompt_tokens``: about, where only the upstream counts."""
    return ServiceError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "context_too_long",
        f"the prompt has {prompt_tokens} tokens and the answer may have {max_tokens}; "
        f"together at most {context_length}",
        metadata={"prompt_tokens": str(prompt_tokens), "context_length": str(context_length)},
    )


def model_not_found(model: str) -> ServiceError:
    """This replica does not serve the model."""
    return ServiceError(
        grpc.StatusCode.NOT_FOUND, "model_not_found", f"the model {model[:128]!r} is not served"
    )


def model_revision_mismatch(revision: str) -> ServiceError:
    """Another revision is served."""
    return ServiceError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "model_revision_mismatch",
        f"this replica serves revision {revision!r}",
    )


def external_engine() -> ServiceError:
    """The request must not leave the operator's own fleet, and this engine is outside."""
    return ServiceError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "external_engine",
        "the request must not leave the operator's own fleet, and this engine is outside",
    )


def overloaded(why: str = "as many requests wait as may", retry_after: float = 1.0) -> ServiceError:
    """The queue, here or behind, is full; ``retry_after`` in seconds."""
    return ServiceError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "overloaded", why, retry_after=retry_after
    )


def engine_unavailable(why: str) -> ServiceError:
    """Nothing was drawn, and nothing will be here."""
    return ServiceError(grpc.StatusCode.UNAVAILABLE, "engine_unavailable", why)


def engine_lost(why: str) -> ServiceError:
    """The answer broke off; it can be continued elsewhere."""
    return ServiceError(grpc.StatusCode.ABORTED, "engine_lost", why)


def continuation_unsupported() -> ServiceError:
    """An answer drawn with these options cannot be continued."""
    return ServiceError(
        grpc.StatusCode.FAILED_PRECONDITION,
        "continuation_unsupported",
        "penalties and schemas depend on state that token ids do not restore",
    )


def timed_out() -> ServiceError:
    """The caller's deadline has passed."""
    return ServiceError(
        grpc.StatusCode.DEADLINE_EXCEEDED, "timed_out", "the call's deadline has passed"
    )
