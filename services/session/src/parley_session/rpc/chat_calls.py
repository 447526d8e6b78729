"""The calls on chats and messages."""

from __future__ import annotations

from parley.session.v1 import session_pb2 as pb
from parley.session.v1 import session_pb2_grpc as pb_grpc

from parley_session.chats import Chats
from parley_session.domain import bounds, errors
from parley_session.fleet.base import Fleet
from parley_session.rpc import from_proto, to_proto
from parley_session.rpc.seam import Context, asked_by
from parley_session.runs.deleting import Deleter


class ChatCalls(pb_grpc.SessionServiceServicer):
    """Translates; what is done is in `chats` and `runs.deleting`."""

    _chats: Chats
    _deleter: Deleter
    _fleet: Fleet

    async def CreateChat(
        self, request: pb.CreateChatRequest, context: Context
    ) -> pb.CreateChatResponse:
        """Create an empty chat."""
        with asked_by(context) as principal:
            from_proto.check(bounds.check_id("chatID", request.chat_id))
            new = from_proto.new_chat(request.chat)
            key = from_proto.creation_key(request)
            chat, replayed = await self._chats.create(principal, request.chat_id, new, key)
            return pb.CreateChatResponse(chat=to_proto.chat(chat), replayed=replayed)

    async def ListChats(
        self, request: pb.ListChatsRequest, context: Context
    ) -> pb.ListChatsResponse:
        """List the user's chats."""
        with asked_by(context) as principal:
            from_proto.check(bounds.check_range("limit", request.limit, 1, bounds.MAX_LISTED_CHATS))
            after = from_proto.cursor(request.cursor)
            page = await self._chats.list(principal, request.limit, after)
            return pb.ListChatsResponse(
                chats=[to_proto.listing(chat) for chat in page.chats],
                next_cursor=from_proto.cursor_text(page.after) if page.after else "",
            )

    async def GetChat(self, request: pb.GetChatRequest, context: Context) -> pb.GetChatResponse:
        """Read a chat and a page of its messages."""
        with asked_by(context) as principal:
            chat_id = from_proto.check_id("chat", request.chat_id)
            from_proto.check(
                bounds.check_range("limit", request.limit, 0, bounds.MAX_LISTED_MESSAGES)
            )
            before = None
            if request.before_message_id:
                before = from_proto.message_seq(chat_id, request.before_message_id)
                if before is None:
                    raise errors.invalid_field("before", "is no message of this chat")
            page = await self._chats.read(principal, chat_id, request.limit, before)
            return pb.GetChatResponse(
                chat=to_proto.chat(page.chat),
                messages=[to_proto.message(message) for message in page.messages],
                has_more=page.has_more,
            )

    async def UpdateChat(
        self, request: pb.UpdateChatRequest, context: Context
    ) -> pb.UpdateChatResponse:
        """Change a chat's title."""
        with asked_by(context) as principal:
            chat_id = from_proto.check_id("chat", request.chat_id)
            from_proto.check(bounds.check_title(request.title))
            if not request.title.strip():
                raise errors.invalid_field("title", "must not be blank")
            chat = await self._chats.rename(principal, chat_id, request.title)
            return pb.UpdateChatResponse(chat=to_proto.chat(chat))

    async def DeleteChat(
        self, request: pb.DeleteChatRequest, context: Context
    ) -> pb.DeleteChatResponse:
        """Delete a chat and all that it said."""
        with asked_by(context) as principal:
            chat_id = from_proto.check_id("chat", request.chat_id)
            if not await self._deleter.delete(principal, chat_id):
                raise errors.not_found("chat")
            return pb.DeleteChatResponse()

    async def RateMessage(
        self, request: pb.RateMessageRequest, context: Context
    ) -> pb.RateMessageResponse:
        """Store a rating of an answer."""
        with asked_by(context) as principal:
            chat_id = from_proto.check_id("chat", request.chat_id)
            rating = from_proto.rating(request.rating)
            seq = from_proto.message_seq(chat_id, request.message_id)
            if seq is None:
                raise errors.not_found("message")
            await self._chats.rate(principal, chat_id, seq, rating)
            return pb.RateMessageResponse()

    async def ListModels(
        self,
        request: pb.ListModelsRequest,  # noqa: ARG002
        context: Context,
    ) -> pb.ListModelsResponse:
        """List the models that the fleet serves now and the tenant may use."""
        with asked_by(context) as principal:
            models = await self._fleet.models(principal.tenant)
            return pb.ListModelsResponse(models=[to_proto.model(model) for model in models])
