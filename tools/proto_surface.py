"""What the services' protobuf says on the wire, a line each, for comparing versions.

`python tools/proto_surface.py` writes it to proto/released.txt, which is what a release does.
Services of version N and N+1 run side by side while an upgrade rolls, so every line of the
released version has to be there in the next one: fields keep number, type and cardinality, enum
values their number, methods their messages. What is new is a new line.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from parley.cache.v1 import cache_pb2
from parley.inference.v1 import inference_pb2
from parley.session.v1 import session_pb2

FILES: tuple[FileDescriptor, ...] = (
    cache_pb2.DESCRIPTOR,
    inference_pb2.DESCRIPTOR,
    session_pb2.DESCRIPTOR,
)
RELEASED = Path(__file__).parent.parent / "proto" / "released.txt"
_TYPES = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}


def surface() -> list[str]:
    """Return the lines, sorted."""
    return sorted(line for file in FILES for line in _file(file))


def _file(file: FileDescriptor) -> Iterator[str]:
    for message in file.message_types_by_name.values():
        yield from _message(message)
    for enum in file.enum_types_by_name.values():
        yield from _enum(enum)
    for service in file.services_by_name.values():
        for method in service.methods:
            arrow = "-> stream" if method.server_streaming else "->"
            sent = "stream " if method.client_streaming else ""
            yield (
                f"rpc {method.full_name} {sent}{method.input_type.full_name} {arrow} "
                f"{method.output_type.full_name}"
            )


def _message(message: Descriptor) -> Iterator[str]:
    yield f"message {message.full_name}"
    for field in message.fields:
        kind = _TYPES[field.type]
        if field.message_type is not None:
            kind = f"message {field.message_type.full_name}"
        elif field.enum_type is not None:
            kind = f"enum {field.enum_type.full_name}"
        many = "repeated " if field.is_repeated else ""
        yield f"field {field.full_name} = {field.number} {many}{kind}"
    for nested in message.nested_types:
        yield from _message(nested)
    for enum in message.enum_types:
        yield from _enum(enum)


def _enum(enum: EnumDescriptor) -> Iterator[str]:
    for value in enum.values:
        yield f"enum {enum.full_name} {value.name} = {value.number}"


def main() -> int:
    """Write the file; the exit code."""
    RELEASED.write_text("\n".join(surface()) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
