"""A log line is one JSON object that names its trace."""

import json
import logging
import warnings
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider

from parley_kit.logs import setup_logging


@pytest.fixture(autouse=True)
def _keep_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    line = json.loads(lines[0])
    assert isinstance(line, dict)
    return line


def test_a_line_has_the_named_fields_and_the_extras(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("cache")
    logging.getLogger("x.y").warning("lost %d", 3, extra={"address": "a:1", "obj": object})
    line = last_line(capsys)
    assert (line["level"], line["service"], line["logger"]) == ("warning", "cache", "x.y")
    assert (line["message"], line["address"]) == ("lost 3", "a:1")
    assert str(line["ts"]).endswith("Z")
    assert "trace_id" not in line


def test_a_line_within_a_span_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("cache")
    tracer = TracerProvider().get_tracer("t")
    with tracer.start_as_current_span("s") as span:
        logging.getLogger().info("hello")
    line = last_line(capsys)
    context = span.get_span_context()
    assert line["trace_id"] == f"{context.trace_id:032x}"
    assert line["span_id"] == f"{context.span_id:016x}"


def test_an_exception_is_a_field_and_the_line_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("cache")
    try:
        raise ValueError("a\nb")
    except ValueError:
        logging.getLogger().exception("oh\nno")
    line = last_line(capsys)
    assert "ValueError: a\nb" in str(line["exception"])
    assert line["message"] == "oh\nno"


def test_extras_do_not_stand_in_for_what_readers_rely_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup_logging("cache")
    logging.getLogger().info("hello", extra={"service": "forged", "level": "forged"})
    line = last_line(capsys)
    assert (line["service"], line["level"]) == ("cache", "info")


def test_long_messages_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("cache")
    logging.getLogger().info("x" * 1_000_000)
    assert len(str(last_line(capsys)["message"])) < 10_000


def test_what_is_below_the_level_or_chatter_is_not_logged(
    capsys: pytest.CaptureFixture[str],
) -> None:
    setup_logging("cache", "info")
    logging.getLogger("parley_cache").debug("no")
    logging.getLogger("httpx").info("no")
    logging.getLogger("uvicorn.access").info("no")
    assert capsys.readouterr().out == ""


def test_warnings_become_lines(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("cache")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        setup_logging("cache")
        warnings.warn("be careful", UserWarning, stacklevel=1)
    assert "be careful" in str(last_line(capsys)["message"])


def test_people_get_short_lines(capsys: pytest.CaptureFixture[str]) -> None:
    setup_logging("cache", "debug", "console")
    logging.getLogger("x").debug("hello", extra={"address": "a:1"})
    out = capsys.readouterr().out
    assert out.rstrip().endswith("DEBUG   x: hello address=a:1")
    assert "\x1b" not in out
