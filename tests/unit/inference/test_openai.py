"""The pieces of the `openai` engine: text as ids, events, refusals, counting, dialects."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from parley_inference.engine.base import (
    EngineBusy,
    EngineRequest,
    Message,
    Prompt,
    RequestRefused,
    Role,
    Sampling,
)
from parley_inference.engine.openai import dialects
from parley_inference.engine.openai.frames import MAX_EVENT_BYTES, BadFrame, Frames
from parley_inference.engine.openai.reading import AnswerReader
from parley_inference.engine.openai.refusals import refusal
from parley_inference.engine.openai.text_ids import (
    VOCAB_SIZE,
    count_pieces,
    decode_pieces,
    encode_piece,
)
from parley_inference.engine.openai.tokens import Counter

TEXTS = st.text(st.characters(codec="utf-8"), min_size=1)


@given(st.lists(TEXTS, max_size=8))
def test_ids_hold_the_text_and_its_pieces(pieces: list[str]) -> None:
    ids = [token_id for piece in pieces for token_id in encode_piece(piece)]
    texts = decode_pieces(ids)
    assert [text for text in texts if text is not None] == pieces
    assert len(texts) == len(ids)
    assert count_pieces(ids) == len(pieces)
    assert all(0 < token_id < VOCAB_SIZE for token_id in ids)


@pytest.mark.parametrize(
    "ids",
    [
        [1 << 24 | 65],
        [1 << 26],
        [1 << 26 | 1 << 24 | 0xE2],
        [1 << 26 | 1 << 24 | 0x4141],
        [1 << 28],
    ],
)
def test_ids_that_hold_no_text_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError):
        decode_pieces(ids)


@given(st.lists(st.integers(1, 9), max_size=40))
def test_events_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    stream = (
        b': hi\r\nevent: x\ndata: {"a": "\xe2\x82\xac"}\r\n\r\ndata:{"b": 2}\n\ndata: [DONE]\n\nx\n'
    )
    frames, found = Frames(), []
    for size in [*cuts, len(stream)]:
        part, stream = stream[:size], stream[size:]
        found += list(frames.feed(part))
    assert found == [{"a": "€"}, {"b": 2}]
    assert frames.done


@pytest.mark.parametrize(
    "data",
    [
        b"data: [1]\n",
        b"data: {\n",
        b"HTTP/1.1 200 OK\n",
        b"data: " + b"x" * (MAX_EVENT_BYTES + 1),
        b"data: " + b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_no_event_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        list(Frames().feed(data))


def test_a_step_has_the_text_of_one_choice_only() -> None:
    reader = AnswerReader(max_tokens=4)
    choices = [
        {"index": 0, "delta": {"content": "one"}},
        {"index": 1, "delta": {"content": "two"}},
    ]
    step = reader.read(b"data: " + json.dumps({"choices": choices}).encode() + b"\n\n")
    assert step is not None
    assert step.texts == ["one"]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        ("-1", 0.0),
        ("1e9", 3600.0),
        ("nan", 1.0),
        ("soon", 1.0),
        ("", 1.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_retry_after_is_understood_and_bounded(header: str, seconds: float) -> None:
    error = refusal(429, b"", header)
    assert isinstance(error, EngineBusy)
    assert error.retry_after == seconds


def test_nothing_that_an_upstream_says_is_repeated() -> None:
    said = b'{"error": {"message": "private words", "param": "private words", "code": "private"}}'
    for status in (302, 400, 401, 404, 422, 429, 500):
        assert "private" not in str(refusal(status, said))


@pytest.mark.parametrize(
    ("dialect", "sampling", "field"),
    [
        ("openai", Sampling(4, top_k=2), "sampling.top_k"),
        ("transformers", Sampling(4, presence_penalty=1), "sampling.presence_penalty"),
        ("transformers", Sampling(4, json_schema="{}"), "sampling.json_schema"),
    ],
)
def test_options_that_an_upstream_would_ignore_are_refused(
    dialect: str, sampling: Sampling, field: str
) -> None:
    with pytest.raises(RequestRefused) as refused:
        dialects.check(dialects.DIALECTS[dialect], sampling)
    assert refused.value.field == field


def test_a_continued_answer_asks_for_what_is_left_with_another_seed() -> None:
    prompt = Prompt((), [Message(Role.USER, "q")], 9)
    ids = [*encode_piece("one"), *encode_piece(" longer piece")]
    first = EngineRequest("r", prompt, Sampling(10, seed=7))
    later = EngineRequest("r", prompt, Sampling(10, seed=7), generated=ids)
    vllm = dialects.DIALECTS["vllm"]
    asked, again = (dialects.request_body(vllm, "m", request) for request in (first, later))
    assert (asked["max_tokens"], again["max_tokens"]) == (10, 8)
    assert asked["seed"] == 7 != again["seed"]
    assert again["messages"][-1] == {"role": "assistant", "content": "one longer piece"}


def test_what_is_not_asked_for_is_not_left_to_an_upstreams_defaults() -> None:
    request = EngineRequest("r", Prompt((), [Message(Role.USER, "q")], 9), Sampling(10))
    plain, vllm, llama = (
        dialects.request_body(dialects.DIALECTS[name], "m", request)
        for name in ("openai", "vllm", "llama_cpp")
    )
    assert not plain.keys() & {"top_k", "min_p", "repetition_penalty", "repeat_penalty"}
    assert (vllm["top_k"], vllm["min_p"], vllm["repetition_penalty"]) == (0, 0, 1)
    assert (llama["top_k"], llama["min_p"], llama["repeat_penalty"]) == (0, 0, 1)
    asked = replace(request, sampling=Sampling(10, top_k=5))
    assert dialects.request_body(dialects.DIALECTS["vllm"], "m", asked)["top_k"] == 5


@pytest.mark.parametrize(("temperature", "sampled"), [(0.0, False), (0.7, True)])
def test_an_upstream_that_draws_greedily_unless_told_is_told(
    temperature: float, sampled: bool
) -> None:
    sampling = Sampling(10, temperature=temperature, top_k=5)
    request = EngineRequest("r", Prompt((), [Message(Role.USER, "q")], 9), sampling)
    body = dialects.request_body(dialects.DIALECTS["transformers"], "m", request)
    told = json.loads(body["generation_config"])
    assert told == {"do_sample": sampled, "top_k": 5, "repetition_penalty": 1.0}
    assert body["temperature"] == temperature
    assert "top_k" not in body


def test_a_schema_has_the_form_that_the_upstream_knows() -> None:
    sampling = Sampling(10, json_schema='{"type": "object"}')
    request = EngineRequest("r", Prompt((), [Message(Role.USER, "q")], 9), sampling)
    vllm = dialects.request_body(dialects.DIALECTS["vllm"], "m", request)["response_format"]
    assert vllm["json_schema"]["schema"] == {"type": "object"}
    llama = dialects.request_body(dialects.DIALECTS["llama_cpp"], "m", request)
    assert llama["response_format"] == {"type": "json_object", "schema": {"type": "object"}}


TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


async def test_a_tokenizer_folder_counts_exactly(tmp_path: Path) -> None:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"chat_template": TEMPLATE, "eos_token": {"content": "E"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    counter = Counter(tmp_path)
    await counter.open()
    try:
        counts = await counter.count([Message(Role.USER, "ab"), Message(Role.ASSISTANT, "€")])
        assert counts.tokens == [len("<user>abE"), len("<assistant>E") + 3]
        assert counts.overhead == len("<assistant>")
        assert counter.length("abc") == 3
        assert not counter.estimates
    finally:
        counter.close()


async def test_without_one_counts_are_estimates_that_are_not_too_low() -> None:
    counter = Counter(None)
    counts = await counter.count([Message(Role.USER, "abcdef")])
    assert counter.estimates
    assert counts.tokens == [6]
