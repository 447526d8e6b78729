"""Locust's side: `python -m locust -f …/locustfile.py`, or `python -m parley_loadtest`."""

from __future__ import annotations

import logging
import random
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from geventhttpclient.response import HTTPParseError
from locust import User, constant, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import (
    STATE_CLEANUP,
    STATE_STOPPED,
    STATE_STOPPING,
    MasterRunner,
    WorkerRunner,
)

from parley_loadtest.client import Answer, ParleyClient
from parley_loadtest.failures import FailureLog, RequestFailed
from parley_loadtest.health import Health, watch
from parley_loadtest.options import PersonOptions, add_options, person_options, thresholds
from parley_loadtest.person import Person
from parley_loadtest.prompts import PromptFileError
from parley_loadtest.rows import record
from parley_loadtest.summary import exit_code, summary
from parley_loadtest.thresholds import Threshold, ThresholdError

_log = logging.getLogger("parley_loadtest")

WRONG_OPTIONS = 2
_ENDING = frozenset({STATE_STOPPING, STATE_STOPPED, STATE_CLEANUP})


class Run:
    """What the processes of one load test keep: options, health, judgements."""

    def __init__(self) -> None:
        self.options: PersonOptions | None = None
        self.thresholds: list[Threshold] = []
        self.failures: FailureLog | None = None
        self.health = Health()
        self.workers: dict[str, Health] = {}
        self.over = False


RUN = Run()


def _add_options(parser: Any) -> None:
    add_options(parser)


def _prepare(environment: Environment, **_: Any) -> None:
    parsed = environment.parsed_options
    if parsed is None:
        return
    try:
        RUN.options = person_options(parsed)
        RUN.thresholds = thresholds(parsed)
    except (PromptFileError, ThresholdError) as exc:
        print(exc, file=sys.stderr)
        sys.exit(WRONG_OPTIONS)
    if parsed.failures_file:
        RUN.failures = FailureLog(Path(parsed.failures_file))
    if not isinstance(environment.runner, MasterRunner):
        gevent.spawn(watch, RUN.health, time.process_time, gevent.sleep, lambda: RUN.over)


def _report(data: dict[str, Any], **_: Any) -> None:
    data["parley_health"] = RUN.health.as_dict()


def _collect(client_id: str, data: dict[str, Any], **_: Any) -> None:
    if "parley_health" in data:
        RUN.workers[client_id] = Health(**data["parley_health"])


def _judge(environment: Environment, **_: Any) -> None:
    RUN.over = True
    if isinstance(environment.runner, WorkerRunner):
        return
    healths = list(RUN.workers.values()) or [RUN.health]
    print(summary(environment.stats, RUN.thresholds, healths))
    environment.process_exit_code = exit_code(environment.stats, RUN.thresholds)


_hooks: Any = events  # untyped in Locust
_hooks.init_command_line_parser.add_listener(_add_options)
_hooks.init.add_listener(_prepare)
_hooks.report_to_master.add_listener(_report)
_hooks.worker_report.add_listener(_collect)
_hooks.quitting.add_listener(_judge)


class ChatUser(User):
    """A person who holds chats through the gateway at `--host`."""

    wait_time = constant(0)  # the person thinks between chats as between questions

    def on_start(self) -> None:
        """Get a connection and a mind of one's own."""
        options = RUN.options
        if options is None or not self.host:
            raise StopUser
        user = f"load-{uuid.uuid4().hex[:16]}" if options.send_user else ""
        draw = random.Random(f"{options.seed}-{self._number()}" if options.seed else None)
        self._client = ParleyClient(self.host, options.api_key, options.timeout)
        self._person = Person(
            user,
            options,
            self._client,
            record=self._record,
            answered=self._answered,
            sleep=self._sleep,
            draw=draw,
        )

    def on_stop(self) -> None:
        """Hang up."""
        self._client.close()

    @task
    def chat(self) -> None:
        """Hold one chat, then think."""
        self._person.hold_chat()
        self._person.think()

    def _number(self) -> int:
        runner = self.environment.runner
        return runner.user_count if runner is not None else 0

    def _leave_if_over(self) -> None:
        """End this person when the test ends: what is going on is finished, nothing begun."""
        runner = self.environment.runner
        if RUN.over or (runner is not None and runner.state in _ENDING):
            raise StopUser

    def _sleep(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._leave_if_over()
            gevent.sleep(min(left, 0.25))

    def _record(self, kind: str, name: str, request: Callable[[], Any]) -> Any:
        self._leave_if_over()
        began = time.monotonic()
        failure: Exception | None = None
        result: Any = None
        try:
            result = request()
        except (RequestFailed, OSError, HTTPParseError) as exc:
            failure = exc
        length = len(result.text.encode()) if isinstance(result, Answer) else 0
        left = isinstance(result, Answer) and result.left
        self.environment.events.request.fire(
            request_type=f"{kind}, left" if left else kind,
            name=name,
            response_time=(time.monotonic() - began) * 1e3,
            response_length=length,
            exception=failure,
            context={},
        )
        if failure is not None:
            if RUN.failures is not None:
                RUN.failures.write(name, failure, {"kind": kind})
            self._person.pause_after(failure)
        return result

    def _answered(self, answer: Answer) -> None:
        record(self.environment.stats, answer.cache_status, answer.timing, answer.tokens)
