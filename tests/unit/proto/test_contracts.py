"""The contracts keep buf's STANDARD rules, explain each call, and match the generated code."""

import functools
import importlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from grpc_tools import protoc  # type: ignore[import-untyped]

PROTO = Path(__file__).parents[3] / "proto"
FILES = sorted(str(path.relative_to(PROTO)) for path in (PROTO / "parley").rglob("*.proto"))

PASCAL = re.compile(r"[A-Z][A-Za-z0-9]*")
LOWER_SNAKE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
UPPER_SNAKE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
VERSION = re.compile(r"v[1-9][0-9]*((alpha|beta)[1-9][0-9]*)?")

# Field numbers of descriptor.proto, by which source locations are addressed.
SERVICE_OF_FILE = 6
METHOD_OF_SERVICE = 2


@functools.cache
def compiled() -> dict[str, FileDescriptorProto]:
    """Compile the sources, comments included."""
    with tempfile.NamedTemporaryFile() as out:
        arguments = [
            "protoc",
            f"-I{PROTO}",
            f"-I{Path(protoc.__file__).parent / '_proto'}",
            "--include_source_info",
            f"--descriptor_set_out={out.name}",
            *(str(PROTO / file) for file in FILES),
        ]
        assert protoc.main(arguments) == 0
        found = FileDescriptorSet.FromString(Path(out.name).read_bytes())
    return {file.name: file for file in found.file}


@pytest.fixture(params=FILES)
def file(request: pytest.FixtureRequest) -> FileDescriptorProto:
    """Each contract."""
    return compiled()[request.param]


def messages(file: FileDescriptorProto) -> Iterator[DescriptorProto]:
    pending = list(file.message_type)
    while pending:
        message = pending.pop()
        yield message
        pending.extend(item for item in message.nested_type if not item.options.map_entry)


def enums(file: FileDescriptorProto) -> Iterator[EnumDescriptorProto]:
    yield from file.enum_type
    for message in messages(file):
        yield from message.enum_type


def comments(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    return {
        tuple(location.path): location.leading_comments.strip()
        for location in file.source_code_info.location
    }


def upper_snake(pascal: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", pascal).upper()


def test_there_are_contracts() -> None:
    assert len(FILES) >= 3


def test_the_package_is_the_folder_and_has_a_version(file: FileDescriptorProto) -> None:
    assert file.package.replace(".", "/") == str(Path(file.name).parent)
    assert VERSION.fullmatch(file.package.rpartition(".")[2])
    assert all(LOWER_SNAKE.fullmatch(part) for part in file.package.split("."))
    assert LOWER_SNAKE.fullmatch(Path(file.name).stem)
    assert file.syntax == "proto3"


def test_imports_are_plain(file: FileDescriptorProto) -> None:
    assert not file.public_dependency
    assert not file.weak_dependency


def test_services_and_calls_are_named_and_typed_by_the_rules(file: FileDescriptorProto) -> None:
    for service in file.service:
        assert PASCAL.fullmatch(service.name)
        assert service.name.endswith("Service")
        for method in service.method:
            assert PASCAL.fullmatch(method.name)
            package = f".{file.package}."
            assert method.input_type in (
                f"{package}{method.name}Request",
                f"{package}{service.name}{method.name}Request",
            )
            assert method.output_type in (
                f"{package}{method.name}Response",
                f"{package}{service.name}{method.name}Response",
            )


def test_no_two_calls_share_a_request_or_response() -> None:
    types = [
        name
        for file in compiled().values()
        for service in file.service
        for method in service.method
        for name in (method.input_type, method.output_type)
    ]
    assert sorted(types) == sorted(set(types))


def test_every_call_says_what_it_does_and_names_its_errors(file: FileDescriptorProto) -> None:
    said = comments(file)
    silent = [
        f"{service.name}.{method.name}"
        for s, service in enumerate(file.service)
        for m, method in enumerate(service.method)
        if "Errors: " not in " ".join(said[SERVICE_OF_FILE, s, METHOD_OF_SERVICE, m].split())
    ]
    assert silent == []


def test_enums_begin_unspecified_and_prefix_their_values(file: FileDescriptorProto) -> None:
    for enum in enums(file):
        prefix = upper_snake(enum.name)
        assert PASCAL.fullmatch(enum.name)
        assert not enum.options.allow_alias
        assert (enum.value[0].name, enum.value[0].number) == (f"{prefix}_UNSPECIFIED", 0)
        for value in enum.value:
            assert value.name.startswith(f"{prefix}_")
            assert UPPER_SNAKE.fullmatch(value.name)


def test_messages_and_fields_are_named_by_the_rules(file: FileDescriptorProto) -> None:
    for message in messages(file):
        assert PASCAL.fullmatch(message.name)
        for field in message.field:
            assert LOWER_SNAKE.fullmatch(field.name), f"{message.name}.{field.name}"
        for oneof in message.oneof_decl:
            # A field that is `optional` makes a oneof of its own name, "_name".
            assert LOWER_SNAKE.fullmatch(oneof.name.removeprefix("_")), message.name


def test_the_generated_code_is_made_of_these_sources(file: FileDescriptorProto) -> None:
    module = importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
    generated = FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(generated)
    source = FileDescriptorProto()
    source.CopyFrom(file)
    source.ClearField("source_code_info")
    # What a compiler adds for its own use is not part of the contract.
    for descriptor in (generated, source):
        for message in messages(descriptor):
            for field in message.field:
                field.ClearField("json_name")
    assert generated == source, "run `make proto`"
