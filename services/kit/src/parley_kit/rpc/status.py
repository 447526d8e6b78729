"""``ServiceError`` on the wire: google.rpc.Status in ``grpc-status-details-bin``.

The one place where an error becomes a gRPC status, and a gRPC status an error.
``code`` travels as ErrorInfo.reason with domain "parley", ``fields`` as
BadRequest, ``retry_after`` as RetryInfo.
"""

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]

from parley_kit.errors import FieldError, ServiceError

DOMAIN = "parley"
DETAILS_KEY = "grpc-status-details-bin"

# Trailers share one header block (max_metadata_size in options.py): an error
# that describes itself at any length must not lose its status to that bound.
MAX_DETAIL = 512
MAX_FIELDS = 32
MAX_FIELD_NAME = 64
MAX_FIELD_MESSAGE = 128
MAX_METADATA_ENTRIES = 16
MAX_METADATA_VALUE = 128

_CODE_BY_STATUS = {
    grpc.StatusCode.UNAVAILABLE: "unavailable",
    grpc.StatusCode.DEADLINE_EXCEEDED: "timed_out",
    grpc.StatusCode.CANCELLED: "cancelled",
    grpc.StatusCode.UNIMPLEMENTED: "unimplemented",
}
_STATUS_BY_NUMBER = {status.value[0]: status for status in grpc.StatusCode}


def status_to_proto(error: ServiceError) -> status_pb2.Status:
    """Describe an error; over-long parts are cut off."""
    detail = error.detail[:MAX_DETAIL]
    status = status_pb2.Status(code=error.status.value[0], message=detail)
    info = error_details_pb2.ErrorInfo(reason=error.code, domain=DOMAIN)
    for key, value in list(error.metadata.items())[:MAX_METADATA_ENTRIES]:
        info.metadata[key] = value[:MAX_METADATA_VALUE]
    status.details.add().Pack(info)
    if error.fields:
        bad = error_details_pb2.BadRequest()
        for item in error.fields[:MAX_FIELDS]:
            bad.field_violations.add(
                field=item.field[:MAX_FIELD_NAME], description=item.message[:MAX_FIELD_MESSAGE]
            )
        status.details.add().Pack(bad)
    if error.retry_after is not None:
        delay = Duration()
        delay.FromNanoseconds(int(max(0.0, error.retry_after) * 1e9))
        status.details.add().Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def to_trailers(error: ServiceError) -> tuple[tuple[str, bytes], ...]:
    """Return the trailing metadata that carries an error."""
    return ((DETAILS_KEY, status_to_proto(error).SerializeToString()),)


def status_from_proto(status: status_pb2.Status) -> ServiceError | None:
    """Read an error back; None where the status holds no ErrorInfo of ours."""
    code = ""
    metadata: dict[str, str] = {}
    fields: list[FieldError] = []
    retry_after: float | None = None
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        bad = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info) and info.domain == DOMAIN:
            code, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            fields = [FieldError(item.field, item.description) for item in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToNanoseconds() / 1e9
    if not code:
        return None
    return ServiceError(
        _STATUS_BY_NUMBER.get(status.code, grpc.StatusCode.UNKNOWN),
        code,
        status.message,
        fields=fields,
        metadata=metadata,
        retry_after=retry_after,
    )


def from_rpc_error(error: grpc.aio.AioRpcError) -> ServiceError:
    """Translate a failed call.

    A status that carries no ErrorInfo (the transport's own, a foreign server's)
    gets a code by its status: UNAVAILABLE ``unavailable``, DEADLINE_EXCEEDED
    ``timed_out``, CANCELLED ``cancelled``, UNIMPLEMENTED ``unimplemented``,
    anything else ``internal``. The status is kept as it is.
    """
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                described = status_from_proto(status_pb2.Status.FromString(value))
            except DecodeError:
                break
            if described is not None:
                return described
    status = error.code()
    return ServiceError(status, _CODE_BY_STATUS.get(status, "internal"), error.details() or "")
