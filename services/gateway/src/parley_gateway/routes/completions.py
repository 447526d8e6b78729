"""The two calls that begin a run: POST /chat and POST /chat/{chatID}/completion."""

from dataclasses import dataclass
from time import perf_counter
from typing import Annotated

from fastapi import APIRouter, Body, Request, Response
from parley.session.v1 import session_pb2 as pb

from parley_gateway.clients.answers import Answer, Answers
from parley_gateway.clients.session import SessionClient
from parley_gateway.config import GatewaySettings
from parley_gateway.limits import OpenAnswers
from parley_gateway.problems import Problem
from parley_gateway.requests import CompletionRequest, NewChatRequest
from parley_gateway.routes.common import Asked, UserQuery, asked, json_response, known_id
from parley_gateway.routes.completion_docs import (
    COMPLETION_BODIES,
    COMPLETION_RESPONSES,
    NEW_CHAT_BODIES,
    NEW_CHAT_RESPONSES,
)
from parley_gateway.routes.retries import REPLAYED, Key, KeyHeader, Told, key_of, told_of
from parley_gateway.translate import (
    answer_object,
    background_object,
    chat_head,
    new_chat_message,
    options_message,
)
from parley_gateway.web import sse
from parley_gateway.web.collect import collect
from parley_gateway.web.connection import while_connected
from parley_kit.ids import uuid7


@dataclass(frozen=True, slots=True)
class CompletionRoutes:
    """The routes' handlers, with what they need."""

    settings: GatewaySettings
    session: SessionClient
    answers: Answers
    open_answers: OpenAnswers

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        router.add_api_route(
            "/chat",
            self.create_chat,
            methods=["POST"],
            status_code=201,
            tags=["chats"],
            response_model=None,
            responses=NEW_CHAT_RESPONSES,
        )
        router.add_api_route(
            "/chat/{chatID}/completion",
            self.complete,
            methods=["POST"],
            tags=["chats"],
            response_model=None,
            responses=COMPLETION_RESPONSES,
        )

    async def create_chat(
        self,
        request: Request,
        body: Annotated[NewChatRequest, Body(openapi_examples=NEW_CHAT_BODIES)],
        user: UserQuery = None,
        key: KeyHeader = None,
    ) -> Response:
        """Make a chat; with a message, also its answer, as JSON or as events."""
        who = asked(request, user, existing=False, body_user=body.user_id)
        known = key_of(request, key, body)
        if body.message is None:
            return await self._empty_chat(who, body, known)
        return await self._answer(
            request,
            who,
            pb.CompleteRequest(
                chat_id=uuid7(), new_chat=new_chat_message(body), message=body.message
            ),
            body,
            known,
        )

    async def complete(
        self,
        request: Request,
        chatID: str,
        body: Annotated[CompletionRequest, Body(openapi_examples=COMPLETION_BODIES)],
        user: UserQuery = None,
        key: KeyHeader = None,
    ) -> Response:
        """Answer the next message of a chat, as JSON or as events."""
        who = asked(request, user, existing=True, body_user=body.user_id)
        return await self._answer(
            request,
            who,
            pb.CompleteRequest(chat_id=known_id(chatID), message=body.message),
            body,
            key_of(request, key, body),
        )

    async def _empty_chat(self, who: Asked, body: NewChatRequest, key: Key) -> Response:
        create = pb.CreateChatRequest(
            chat_id=uuid7(),
            chat=new_chat_message(body),
            idempotency_key=key.text,
            body_digest=key.digest,
        )
        created = await self.session.call(lambda stub: stub.CreateChat, create, who.metadata)
        headers = {"Location": f"/chat/{created.chat.chat_id}"}
        if created.replayed:
            headers[REPLAYED] = "true"
        return json_response(chat_head(created.chat), 201, headers)

    async def _answer(
        self,
        request: Request,
        who: Asked,
        complete: pb.CompleteRequest,
        body: NewChatRequest | CompletionRequest,
        key: Key,
    ) -> Response:
        timeout = (
            body.options.timeout_seconds if body.options else None
        ) or self.settings.default_timeout_seconds
        complete.run_id = uuid7()
        complete.options.CopyFrom(options_message(body.options, timeout))
        complete.idempotency_key = key.text
        complete.body_digest = key.digest
        if body.background:
            complete.background = True
            return await self._in_background(request, who, complete)
        stream = body.stream
        if stream is None:
            stream = wants_events(request.headers.getlist("accept"))
        return await self._waited_for(
            request, who, complete, stream, timeout + self.settings.answer_margin_seconds
        )

    async def _in_background(
        self, request: Request, who: Asked, complete: pb.CompleteRequest
    ) -> Response:
        """Have the turn accepted, and say where its run is."""
        answer = await while_connected(
            request.receive,
            self.answers.begin(complete, who.metadata, timeout=self.settings.call_timeout_seconds),
        )
        answer.close()
        told = told_of(answer.accepted, complete)
        return json_response(background_object(answer.accepted), told.status, told.headers)

    async def _waited_for(
        self,
        request: Request,
        who: Asked,
        complete: pb.CompleteRequest,
        stream: bool,
        timeout: float,
    ) -> Response:
        began = perf_counter()
        leave = self.open_answers.enter("stream" if stream else "json")
        streaming = False
        try:
            answer = await while_connected(
                request.receive, self.answers.begin(complete, who.metadata, timeout=timeout)
            )
            told = told_of(answer.accepted, complete)
            # How soon a replay begins says nothing of how soon answers do.
            since = None if told.replayed else began
            new_chat = complete.HasField("new_chat")
            if not stream:
                return await self._collected(request, answer, told, since, new_chat)
            streaming = True
            return sse.AnswerStream(
                answer,
                status=told.status,
                headers=told.headers,
                new_chat=new_chat,
                request_id=who.request_id,
                began=since,
                heartbeat_seconds=self.settings.heartbeat_seconds,
                released=leave,
            )
        finally:
            if not streaming:
                leave()

    async def _collected(
        self, request: Request, answer: Answer, told: Told, began: float | None, new_chat: bool
    ) -> Response:
        try:
            done = await while_connected(request.receive, collect(answer, began))
        except Problem as problem:
            if told.replayed:
                problem.headers[REPLAYED] = "true"
            raise
        finally:
            answer.close()
        return json_response(answer_object(done, new_chat=new_chat), told.status, told.headers)


def wants_events(accept: list[str]) -> bool:
    """Whether an Accept header asks for events by name, not merely allows anything."""
    ranges = (part.partition(";")[0].strip() for value in accept for part in value.split(","))
    return any(item.lower() == sse.MEDIA_TYPE for item in ranges)
