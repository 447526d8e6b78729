"""An in-memory SessionService, served over real gRPC: what the gateway's tests call.

It keeps the contract as far as a gateway can tell, counts what it stores, and
does on request what a real one does at the worst moment.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from parley.session.v1 import session_pb2 as pb
from parley.session.v1.session_pb2_grpc import (
    SessionServiceServicer,
    add_SessionServiceServicer_to_server,
)

from parley_kit.errors import ServiceError
from parley_kit.rpc.server import RpcServer, RpcService
from support.poll import until

FULL_NAME = "parley.session.v1.SessionService"
ANSWER = ("Grüße, ", "this is ", "an answer.")


def _now() -> Timestamp:
    moment = Timestamp()
    moment.GetCurrentTime()
    return moment


@dataclass
class _Chat:
    tenant: str
    user: str
    chat: pb.Chat
    messages: list[pb.Message] = field(default_factory=list)


@dataclass
class Memory:
    """What replicas share: the store."""

    chats: dict[str, _Chat] = field(default_factory=dict)
    runs: dict[str, tuple[str, pb.Run]] = field(default_factory=dict)
    ratings: dict[str, int] = field(default_factory=dict)
    # By tenant, user and key: digest, chat, run and whether it was for the background.
    keys: dict[tuple[str, str, str], tuple[bytes, str, str, bool]] = field(default_factory=dict)
    writes: int = 0
    calls: list[tuple[str, Any, dict[str, Any]]] = field(default_factory=list)

    def last(self, name: str) -> tuple[Any, dict[str, Any]]:
        """The last request of a method, and its metadata."""
        return next((r, m) for n, r, m in reversed(self.calls) if n == name)


@dataclass
class Script:
    """How a replica answers. ``gate`` holds the stream after the first delta."""

    pieces: tuple[str, ...] = ANSWER
    gate: asyncio.Event | None = None
    refuse: ServiceError | None = None
    # Ends the run so, after the pieces.
    fail_code: str = ""
    # Ends the stream without a last event after so many pieces.
    break_after: int | None = None
    forever: bool = False
    before_accepted: Callable[[], None] | None = None


class FakeSession(SessionServiceServicer):
    """One replica."""

    def __init__(self, memory: Memory, script: Script | None = None) -> None:
        self.memory = memory
        self.script = script or Script()
        self.calls: Counter[str] = Counter()
        self.cancelled = 0
        self.sent = 0
        self.port = 0
        self._server: RpcServer | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> "FakeSession":
        self._server = RpcServer(
            host="127.0.0.1",
            port=port,
            services=[
                RpcService(
                    FULL_NAME, lambda server: add_SessionServiceServicer_to_server(self, server)
                )
            ],
        )
        self.port = await self._server.start()
        self._server.set_serving(True)
        return self

    async def stop(self) -> None:
        """Die: calls in progress are cut off."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(0)

    def set_serving(self, serving: bool) -> None:
        assert self._server is not None
        self._server.set_serving(serving)

    def _enter(self, name: str, request: Any, context: Any) -> tuple[str, str, bool]:
        metadata = dict(context.invocation_metadata())
        self.calls[name] += 1
        self.memory.calls.append((name, request, metadata))
        if self.script.refuse is not None:
            raise self.script.refuse
        return (
            metadata["parley-tenant"],
            metadata["parley-user-bin"].decode(),
            metadata.get("parley-as-owner") == "1",
        )

    def _owned(self, who: tuple[str, str, bool], chat_id: str) -> _Chat:
        found = self.memory.chats.get(chat_id)
        tenant, user, as_owner = who
        if found is None or found.tenant != tenant or not (as_owner or found.user == user):
            raise ServiceError(grpc.StatusCode.NOT_FOUND, "not_found", "there is no such chat")
        return found

    def _owned_run(self, who: tuple[str, str, bool], run_id: str) -> pb.Run:
        chat_id, run = self.memory.runs.get(run_id, ("", None))
        self._owned(who, chat_id)
        assert run is not None
        return run

    def _new_chat(self, who: tuple[str, str, bool], chat_id: str, new: pb.NewChat) -> _Chat:
        if chat_id in self.memory.chats:
            return self._owned(who, chat_id)
        chat = pb.Chat(
            chat_id=chat_id,
            title=new.title or "New chat",
            system=new.system,
            model=new.model or "fake",
            created_at=_now(),
            updated_at=_now(),
        )
        if new.ttl_seconds:
            chat.expires_at.FromSeconds(chat.created_at.seconds + new.ttl_seconds)
        self.memory.writes += 1
        self.memory.chats[chat_id] = _Chat(who[0], who[1], chat)
        return self.memory.chats[chat_id]

    async def CreateChat(self, request: Any, context: Any) -> Any:
        who = self._enter("CreateChat", request, context)
        chat_id, _, _ = self._keyed(who, request, "")
        replayed = chat_id in self.memory.chats
        chat = self._new_chat(who, chat_id, request.chat).chat
        return pb.CreateChatResponse(chat=chat, replayed=replayed)

    def _keyed(
        self, who: tuple[str, str, bool], request: Any, run_id: str
    ) -> tuple[str, str, bool]:
        """The ids that a request goes on with, and whether the first was for the background."""
        background = getattr(request, "background", False)
        if not request.idempotency_key:
            return request.chat_id, run_id, background
        assert len(request.body_digest) == 32
        mine = (request.body_digest, request.chat_id, run_id, background)
        kept = self.memory.keys.setdefault((who[0], who[1], request.idempotency_key), mine)
        if kept[0] != request.body_digest:
            raise ServiceError(
                grpc.StatusCode.ALREADY_EXISTS, "idempotency_key_reused", "it was used"
            )
        return kept[1:]

    async def Complete(self, request: Any, context: Any) -> AsyncIterator[pb.CompleteResponse]:
        who = self._enter("Complete", request, context)
        if self.script.before_accepted is not None:
            self.script.before_accepted()
        chat_id, run_id, background = self._keyed(who, request, request.run_id)
        if run_id in self.memory.runs:
            accepted = self._accepted(run_id, replayed=True, background=background)
            yield _event(accepted=accepted)
            if not request.background:
                async for event in self._rest(run_id, 0):
                    yield pb.CompleteResponse(event=event)
            return
        request.chat_id, request.run_id = chat_id, run_id
        if request.HasField("new_chat"):
            chat = self._new_chat(who, request.chat_id, request.new_chat)
        else:
            chat = self._owned(who, request.chat_id)
        self.memory.writes += 1
        self._accept(chat, request)
        try:
            yield _event(accepted=self._accepted(request.run_id))
            if request.background:
                self.end_run(request.run_id, pb.RUN_STATE_COMPLETED)
                return
            offset = 0
            while True:
                for number, piece in enumerate(self.script.pieces):
                    if self.script.break_after == number:
                        return
                    offset += len(piece.encode())
                    yield _event(delta=pb.RunDelta(text=piece, end_offset=offset))
                    self.sent += 1
                    if self.script.gate is not None:
                        await self.script.gate.wait()
                if not self.script.forever:
                    break
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        if self.script.fail_code:
            problem = pb.Problem(code=self.script.fail_code, detail="it failed")
            self.end_run(request.run_id, pb.RUN_STATE_FAILED, problem=problem)
            yield _event(
                failed=pb.RunFailed(run_id=request.run_id, chat_id=request.chat_id, problem=problem)
            )
            return
        self.end_run(request.run_id, pb.RUN_STATE_COMPLETED)
        yield _event(done=self._done(self.memory.runs[request.run_id][1]))

    def _accept(self, chat: _Chat, request: Any) -> pb.Message:
        seq = len(chat.messages)
        chat.messages.append(
            pb.Message(
                message_id=f"{request.chat_id}-{seq}",
                role=pb.ROLE_USER,
                content=request.message,
                created_at=_now(),
            )
        )
        answer = pb.Message(
            message_id=f"{request.chat_id}-{seq + 1}",
            role=pb.ROLE_ASSISTANT,
            content="".join(self.script.pieces),
            created_at=_now(),
            finish_reason=pb.FINISH_REASON_STOP,
            run_id=request.run_id,
        )
        chat.messages.append(answer)
        chat.chat.message_count = len(chat.messages)
        run = pb.Run(
            run_id=request.run_id,
            chat_id=request.chat_id,
            state=pb.RUN_STATE_RUNNING,
            created_at=_now(),
            started_at=_now(),
        )
        self.memory.runs[request.run_id] = (request.chat_id, run)
        return answer

    def end_run(self, run_id: str, state: Any, problem: pb.Problem | None = None) -> None:
        """Bring a run to its last state, as the replica that made it, or another, would."""
        _, run = self.memory.runs[run_id]
        answer = self._answer(run)
        run.finished_at.CopyFrom(_now())
        if problem is not None:
            run.error.CopyFrom(problem)
            run.state = state
            return
        run.message.CopyFrom(answer)
        run.usage.CopyFrom(pb.Usage(prompt_tokens=7, completion_tokens=3, cached_prompt_tokens=2))
        run.cache.status = pb.CACHE_STATUS_MISS
        run.context.strategy = pb.HISTORY_STRATEGY_TRUNCATE
        run.context.messages_included = 1
        run.state = state

    def _done(self, run: pb.Run) -> pb.RunDone:
        return pb.RunDone(
            chat=self.memory.chats[run.chat_id].chat,
            run_id=run.run_id,
            message=run.message,
            usage=run.usage,
            cache=run.cache,
            context=run.context,
        )

    async def AttachRun(self, request: Any, context: Any) -> AsyncIterator[pb.AttachRunResponse]:
        who = self._enter("AttachRun", request, context)
        run = self._owned_run(who, request.run_id)
        text = self._answer(run).content.encode()
        inside = request.offset < len(text) and text[request.offset] & 0xC0 == 0x80
        if not request.resumed and (request.offset > len(text) or inside):
            raise ServiceError(grpc.StatusCode.INVALID_ARGUMENT, "bad_event_id", "no such place")
        yield pb.AttachRunResponse(event=pb.RunEvent(accepted=self._accepted(run.run_id)))
        async for event in self._rest(run.run_id, request.offset):
            yield pb.AttachRunResponse(event=event)

    async def _rest(self, run_id: str, offset: int) -> AsyncIterator[pb.RunEvent]:
        """What a reader at an offset gets, once the run has ended."""
        _, run = self.memory.runs[run_id]
        await until(lambda: run.state != pb.RUN_STATE_RUNNING, timeout=30, what="the run's end")
        if run.HasField("error"):
            failed = pb.RunFailed(run_id=run_id, chat_id=run.chat_id, problem=run.error)
            yield pb.RunEvent(failed=failed)
            return
        text = run.message.content.encode()
        if offset < len(text):
            rest = pb.RunDelta(text=text[offset:].decode(), end_offset=len(text))
            yield pb.RunEvent(delta=rest)
        yield pb.RunEvent(done=self._done(run))

    def _accepted(
        self, run_id: str, *, replayed: bool = False, background: bool = False
    ) -> pb.RunAccepted:
        chat_id, run = self.memory.runs[run_id]
        return pb.RunAccepted(
            run_id=run_id,
            chat_id=chat_id,
            message_id=self._answer(run).message_id,
            replayed=replayed,
            state=run.state,
            background=background,
        )

    def _answer(self, run: pb.Run) -> pb.Message:
        messages = self.memory.chats[run.chat_id].messages
        return next(message for message in messages if message.run_id == run.run_id)

    async def GetUsage(self, request: Any, context: Any) -> Any:
        tenant, user, _ = self._enter("GetUsage", request, context)
        runs = [
            run
            for chat_id, run in self.memory.runs.values()
            if (self.memory.chats[chat_id].tenant, self.memory.chats[chat_id].user)
            == (tenant, user)
        ]
        day = pb.UsageDay(
            day=request.from_day,
            chats=1,
            runs=len(runs),
            prompt_tokens=sum(run.usage.prompt_tokens for run in runs),
            completion_tokens=sum(run.usage.completion_tokens for run in runs),
        )
        return pb.GetUsageResponse(days=[day] if runs else [])

    async def ListChats(self, request: Any, context: Any) -> Any:
        tenant, user, _ = self._enter("ListChats", request, context)
        found = [c.chat for c in self.memory.chats.values() if (c.tenant, c.user) == (tenant, user)]
        return pb.ListChatsResponse(
            chats=found[: request.limit],
            next_cursor="more" if len(found) > request.limit else "",
        )

    async def GetChat(self, request: Any, context: Any) -> Any:
        found = self._owned(self._enter("GetChat", request, context), request.chat_id)
        messages = found.messages[-request.limit :] if request.limit else []
        return pb.GetChatResponse(
            chat=found.chat, messages=messages, has_more=len(messages) < len(found.messages)
        )

    async def UpdateChat(self, request: Any, context: Any) -> Any:
        found = self._owned(self._enter("UpdateChat", request, context), request.chat_id)
        self.memory.writes += 1
        found.chat.title = request.title
        return pb.UpdateChatResponse(chat=found.chat)

    async def DeleteChat(self, request: Any, context: Any) -> Any:
        self._owned(self._enter("DeleteChat", request, context), request.chat_id)
        self.memory.writes += 1
        del self.memory.chats[request.chat_id]
        return pb.DeleteChatResponse()

    async def GetRun(self, request: Any, context: Any) -> Any:
        who = self._enter("GetRun", request, context)
        return pb.GetRunResponse(run=self._owned_run(who, request.run_id))

    async def CancelRun(self, request: Any, context: Any) -> Any:
        run = self._owned_run(self._enter("CancelRun", request, context), request.run_id)
        self.memory.writes += 1
        if run.state == pb.RUN_STATE_RUNNING:
            self.end_run(run.run_id, pb.RUN_STATE_CANCELLED)
            run.message.finish_reason = pb.FINISH_REASON_CANCELLED
        return pb.CancelRunResponse(run=run)

    async def RateMessage(self, request: Any, context: Any) -> Any:
        found = self._owned(self._enter("RateMessage", request, context), request.chat_id)
        if request.message_id not in {message.message_id for message in found.messages}:
            raise ServiceError(grpc.StatusCode.NOT_FOUND, "not_found", "no such message")
        self.memory.writes += 1
        self.memory.ratings[request.message_id] = request.rating
        return pb.RateMessageResponse()

    async def ListModels(self, request: Any, context: Any) -> Any:
        self._enter("ListModels", request, context)
        shape: Any = {"context_length": 2048, "engine": "sim"}
        return pb.ListModelsResponse(
            models=[
                pb.Model(model_id="fake", revision="1", adapters=["fake-odd"], **shape),
                pb.Model(model_id="fake-odd", revision="1+a", base_model_id="fake", **shape),
            ]
        )


def _event(**what: Any) -> pb.CompleteResponse:
    return pb.CompleteResponse(event=pb.RunEvent(**what))
