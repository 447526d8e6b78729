"""An error crosses the wire whole, and foreign statuses become errors of ours."""

import grpc
import pytest
from google.rpc import status_pb2  # type: ignore[import-untyped]
from grpc.aio import AioRpcError, Metadata
from hypothesis import given
from hypothesis import strategies as st

from parley_kit.errors import FieldError, NoReplica, ServiceError
from parley_kit.rpc import status as wire
from parley_kit.rpc.options import MAX_METADATA_BYTES

text = st.text(st.characters(codec="utf-8"), max_size=60)
statuses = st.sampled_from([s for s in grpc.StatusCode if s is not grpc.StatusCode.OK])


@given(
    status=statuses,
    code=st.from_regex(r"[a-z_]{1,30}", fullmatch=True),
    detail=text,
    fields=st.lists(st.builds(FieldError, text, text), max_size=5),
    metadata=st.dictionaries(text, text, max_size=5),
    retry_after=st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
)
def test_an_error_survives_the_wire(
    status: grpc.StatusCode,
    code: str,
    detail: str,
    fields: list[FieldError],
    metadata: dict[str, str],
    retry_after: float | None,
) -> None:
    error = ServiceError(
        status, code, detail, fields=fields, metadata=metadata, retry_after=retry_after
    )
    ((key, value),) = wire.to_trailers(error)
    back = wire.from_rpc_error(AioRpcError(status, Metadata(), Metadata((key, value)), details=""))
    assert (back.status, back.code, back.detail) == (status, code, detail)
    assert back.fields == tuple(fields)
    assert back.metadata == metadata
    assert back.retry_after == pytest.approx(retry_after)


def test_an_error_of_any_length_fits_into_a_header_block() -> None:
    error = ServiceError(
        grpc.StatusCode.INVALID_ARGUMENT,
        "invalid_request",
        "ü" * 100_000,
        fields=[FieldError("f" * 1000, "ü" * 10_000)] * 1000,
        metadata={str(n): "ü" * 10_000 for n in range(1000)},
    )
    ((_, value),) = wire.to_trailers(error)
    # Base64 on the wire, and the detail once more, percent-encoded.
    assert len(value) * 4 / 3 + 6 * wire.MAX_DETAIL < MAX_METADATA_BYTES


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (grpc.StatusCode.UNAVAILABLE, "unavailable"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "timed_out"),
        (grpc.StatusCode.CANCELLED, "cancelled"),
        (grpc.StatusCode.UNIMPLEMENTED, "unimplemented"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "internal"),
        (grpc.StatusCode.UNKNOWN, "internal"),
    ],
)
@pytest.mark.parametrize("trailers", [(), ((wire.DETAILS_KEY, b"\xff\xff"),)])
def test_a_bare_or_garbled_status_gets_its_code_by_status(
    status: grpc.StatusCode, code: str, trailers: tuple[tuple[str, bytes], ...]
) -> None:
    foreign = AioRpcError(status, Metadata(), Metadata(*trailers), details="so it is")
    error = wire.from_rpc_error(foreign)
    assert (error.status, error.code, error.detail) == (status, code, "so it is")


def test_details_of_another_domain_are_not_taken_for_ours() -> None:
    described = wire.status_to_proto(ServiceError(grpc.StatusCode.ABORTED, "engine_lost"))
    described.details[0].value = described.details[0].value.replace(b"parley", b"others")
    assert wire.status_from_proto(described) is None
    assert wire.status_from_proto(status_pb2.Status(code=5)) is None


def test_no_replica_is_an_answer_too() -> None:
    error = NoReplica("session")
    assert (error.status, error.code) == (grpc.StatusCode.UNAVAILABLE, "unavailable")
    assert "session" in str(error)
