"""Requests that a machine makes up, against the whole platform: refused ones leave no trace."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from pydantic import TypeAdapter
from pymongo import MongoClient

from e2e import flows
from parley_devstack.stack import Stack
from parley_gateway import answers
from parley_gateway.problems import TABLE
from support.poll import until_sync
from support.stack import MakeStack

pytestmark = pytest.mark.timeout(240)

EXAMPLES = 8
# After acceptance an answer may fail, and stays: with one second's time, for one.
AFTER_ACCEPTANCE = frozenset({"timed_out"})

Documents = dict[str, str]


class Stored:
    """All that the platform keeps in MongoDB."""

    def __init__(self, stack: Stack) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(stack.mongodb_uri, timeoutMS=5000)
        self._database = self._client[stack.config.mongodb_database]

    def look(self) -> Documents:
        """Every document but the counts of tokens, by its collection and id."""
        return {
            f"{name}/{document['_id']}": repr({**document, "tokens": None})
            for name in self._database.list_collection_names()
            for document in self._database[name].find()
        }

    def quiet(self) -> bool:
        """Whether no answer is being made: an accepted request writes after its response too."""
        busy = self._database["chats"].find_one({"pending.0": {"$exists": True}}, {"_id": 1})
        unfinished = {"state": {"$in": ["queued", "running"]}}
        return busy is None and self._database["runs"].find_one(unfinished, {"_id": 1}) is None

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def judge(response: httpx.Response) -> bool:
    """Assert that a refusal is a problem as documented; whether nothing may be stored."""
    if response.status_code < 400:
        return False
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    TypeAdapter(answers.ProblemShape).validate_python(problem)
    assert TABLE[problem["code"]].status == response.status_code
    if problem["code"] in AFTER_ACCEPTANCE:
        return False
    assert response.status_code < 500, response.text
    # Only being busy names a run: another one's. Nothing was accepted of this request.
    assert "runID" not in problem or problem["code"] == "run_in_progress", response.text
    return True


def try_all(send: Callable[[Any], httpx.Response], schema: Any, stored: Stored) -> tuple[int, int]:
    """Send what is made up of the document; how many there were, and how many were refused."""
    tried = refused = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        for mode in schemathesis.GenerationMode:

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def one(case: Any) -> None:
                nonlocal tried, refused
                until_sync(stored.quiet, timeout=30, what="the end of earlier answers")
                before = stored.look()
                response = send(case)
                tried += 1
                if judge(response):
                    refused += 1
                    after = stored.look()
                    written = {key for key in after if after[key] != before.get(key)}
                    assert written == set(), response.text

            one()
    return tried, refused


async def test_what_is_refused_is_a_problem_and_leaves_nothing(make_stack: MakeStack) -> None:
    # Nothing is swept or tidied meanwhile: what is written is written by requests.
    alone = {"PARLEY_SESSION_SWEEP_SECONDS": "300", "PARLEY_SESSION_HOUSEKEEPING": "false"}
    stack = await make_stack(env={"session": alone})
    loop = asyncio.get_running_loop()
    async with flows.client(stack.url) as http:
        chat = (await flows.ask(http, "/chat", "Here I am."))["chatID"]
        turns = itertools.cycle((True, False))
        document = (await http.get("/openapi.json")).json()

        def send(case: Any) -> httpx.Response:
            # One in two is of a chat that exists, and that stays.
            if case.method != "DELETE" and "chatID" in case.path_parameters and next(turns):
                case.path_parameters["chatID"] = chat
            call = case.as_transport_kwargs(base_url=stack.url)
            call.pop("cookies", None)
            if "data" in call:
                call["content"] = call.pop("data")
            return asyncio.run_coroutine_threadsafe(http.request(**call), loop).result(30)

        schema = schemathesis.openapi.from_dict(document)
        stored = Stored(stack)
        try:
            tried, refused = await asyncio.to_thread(try_all, send, schema, stored)
        finally:
            stored.close()
    assert tried > 100
    assert refused > tried / 3
