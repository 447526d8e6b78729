"""Requests that break a bound are refused, all mistakes at once."""

import math
from collections.abc import Callable

import grpc
import pytest
from parley.inference.v1 import inference_pb2 as pb

from parley_inference.bounds import Bounds, check_count, check_generate
from parley_inference.engine.base import Role
from parley_kit.errors import ServiceError

BOUNDS = Bounds(max_messages=10, max_prompt_bytes=1000)


def good() -> pb.GenerateRequest:
    return pb.GenerateRequest(
        request_id="r:1:1",
        model="m",
        messages=[pb.ChatMessage(role=pb.ROLE_USER, content="hello")],
        sampling=pb.SamplingOptions(max_tokens=16, temperature=0.7, top_p=0.9, seed=0),
    )


def test_a_good_request_is_translated() -> None:
    asked = check_generate(good(), BOUNDS)
    assert asked.messages[0].role is Role.USER
    assert asked.sampling.seed == 0
    assert asked.sampling.max_tokens == 16
    without = good()
    without.sampling.ClearField("seed")
    assert check_generate(without, BOUNDS).sampling.seed is None


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda r: r.ClearField("request_id"), "request_id"),
        (lambda r: setattr(r, "request_id", "x" * 257), "request_id"),
        (lambda r: setattr(r, "cache_salt", "x" * 257), "cache_salt"),
        (lambda r: r.ClearField("messages"), "messages"),
        (
            lambda r: r.messages.extend([pb.ChatMessage(role=pb.ROLE_USER, content="x")] * 10),
            "messages",
        ),
        (lambda r: r.messages.add(role=2, content="é" * 500), "messages"),
        (lambda r: r.messages.add(role=3, content="the assistant is last"), "messages"),
        (lambda r: setattr(r.messages[0], "role", 0), "messages[0].role"),
        (lambda r: setattr(r.messages[0], "role", 9), "messages[0].role"),
        (lambda r: setattr(r.messages[0], "content", "a\0b"), "messages[0].content"),
        (lambda r: setattr(r.sampling, "max_tokens", 0), "sampling.max_tokens"),
        (lambda r: setattr(r.sampling, "temperature", -0.1), "sampling.temperature"),
        (lambda r: setattr(r.sampling, "temperature", 2.1), "sampling.temperature"),
        (lambda r: setattr(r.sampling, "temperature", math.nan), "sampling.temperature"),
        (lambda r: setattr(r.sampling, "top_p", 0), "sampling.top_p"),
        (lambda r: setattr(r.sampling, "top_p", math.nan), "sampling.top_p"),
        (lambda r: setattr(r.sampling, "top_k", 2**31), "sampling.top_k"),
        (lambda r: setattr(r.sampling, "presence_penalty", 3), "sampling.presence_penalty"),
        (lambda r: setattr(r.sampling, "frequency_penalty", -math.inf), "sampling.frequency_pe"),
        (lambda r: r.sampling.stop.extend("abcde"), "sampling.stop"),
        (lambda r: r.sampling.stop.append(""), "sampling.stop"),
        (lambda r: r.sampling.stop.append("x" * 65), "sampling.stop"),
        (lambda r: setattr(r.sampling, "json_schema", "{"), "sampling.json_schema"),
        (lambda r: setattr(r.sampling, "json_schema", "[]"), "sampling.json_schema"),
        (lambda r: setattr(r.sampling, "json_schema", "[" * 8000), "sampling.json_schema"),
        (lambda r: setattr(r.sampling, "json_schema", nested(33)), "sampling.json_schema"),
        (lambda r: setattr(r.sampling, "json_schema", " " * 16385), "sampling.json_schema"),
        (lambda r: setattr(r, "template_time", -1), "template_time"),
        (lambda r: setattr(r, "template_time", 2**62), "template_time"),
        (lambda r: setattr(r, "priority", -(2**31)), "priority"),
    ],
)
def test_a_broken_bound_is_refused_and_named(
    spoil: Callable[[pb.GenerateRequest], object], field: str
) -> None:
    request = good()
    spoil(request)
    with pytest.raises(ServiceError) as refusal:
        check_generate(request, BOUNDS)
    assert refusal.value.status is grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.value.code == "invalid_request"
    assert refusal.value.fields[0].field.startswith(field)


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(ServiceError) as refusal:
        check_generate(pb.GenerateRequest(), BOUNDS)
    assert {mistake.field for mistake in refusal.value.fields} == {
        "request_id",
        "messages",
        "sampling.max_tokens",
        "sampling.top_p",
    }


def test_no_more_than_a_thousand_messages_are_counted() -> None:
    many = pb.CountTokensRequest(messages=[pb.ChatMessage(role=pb.ROLE_USER, content="")] * 1001)
    with pytest.raises(ServiceError):
        check_count(many, BOUNDS)
    messages, sampling = check_count(pb.CountTokensRequest(messages=many.messages[:1000]), BOUNDS)
    assert len(messages) == 1000
    assert sampling is None


def test_options_are_judged_with_a_count_where_they_are_given() -> None:
    asked = pb.CountTokensRequest(messages=good().messages, sampling=good().sampling)
    _, sampling = check_count(asked, BOUNDS)
    assert sampling is not None
    assert sampling.max_tokens == 16
    asked.sampling.json_schema = nested(100)
    with pytest.raises(ServiceError) as refusal:
        check_count(asked, BOUNDS)
    assert [item.field for item in refusal.value.fields] == ["sampling.json_schema"]
