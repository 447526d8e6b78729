"""Reading, changing and deleting chats, and rating their answers."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from parley.session.v1 import session_pb2 as pb

from parley_gateway import bounds
from parley_gateway.answers import ChatListShape, ChatPageShape, ChatShape
from parley_gateway.clients.session import SessionClient
from parley_gateway.problems import Problem, bad_field
from parley_gateway.requests import ChatPatch, Feedback
from parley_gateway.routes.common import (
    BODY_PROBLEMS,
    UserQuery,
    asked,
    is_message_of,
    json_response,
    known_id,
    responses,
)
from parley_gateway.translate import RATING_BY_NAME, chat_object, chat_row, message_object

# Room for any messageID, and more than any.
_MAX_MESSAGE_ID_CHARACTERS = 64

ChatLimit = Annotated[int, Query(ge=1, le=bounds.MAX_CHATS)]
MessageLimit = Annotated[int, Query(ge=1, le=bounds.MAX_MESSAGES)]
CursorQuery = Annotated[
    bounds.Cursor | None, bounds.NotNull(), Query(description="`nextCursor` of the page before.")
]
BeforeQuery = Annotated[
    str | None,
    bounds.NotNull(),
    Query(
        max_length=_MAX_MESSAGE_ID_CHARACTERS, description="Only messages before this messageID."
    ),
]


@dataclass(frozen=True, slots=True)
class ChatRoutes:
    """The routes' handlers, with what they need."""

    session: SessionClient

    def add_to(self, router: APIRouter) -> None:
        """Add the routes."""
        router.add_api_route(
            "/chats",
            self.list_chats,
            methods=["GET"],
            tags=["chats"],
            response_model=None,
            responses=responses({200: {"model": ChatListShape}}),
        )
        router.add_api_route(
            "/chat/{chatID}",
            self.read_chat,
            methods=["GET"],
            tags=["chats"],
            response_model=None,
            responses=responses({200: {"model": ChatPageShape}}, "not_found"),
        )
        router.add_api_route(
            "/chat/{chatID}",
            self.change_chat,
            methods=["PATCH"],
            tags=["chats"],
            response_model=None,
            responses=responses({200: {"model": ChatShape}}, *BODY_PROBLEMS, "not_found"),
        )
        router.add_api_route(
            "/chat/{chatID}",
            self.delete_chat,
            methods=["DELETE"],
            status_code=204,
            tags=["chats"],
            response_model=None,
            responses=responses({}, "not_found"),
        )
        router.add_api_route(
            "/chat/{chatID}/messages/{messageID}/feedback",
            self.rate,
            methods=["POST"],
            status_code=204,
            tags=["chats"],
            response_model=None,
            responses=responses({}, *BODY_PROBLEMS, "not_found"),
        )

    async def list_chats(
        self,
        request: Request,
        limit: ChatLimit = 20,
        cursor: CursorQuery = None,
        user: UserQuery = None,
    ) -> Response:
        """List the caller's chats, latest update first."""
        who = asked(request, user, existing=False)
        page = await self.session.call(
            lambda stub: stub.ListChats,
            pb.ListChatsRequest(limit=limit, cursor=cursor or ""),
            who.metadata,
        )
        found: dict[str, object] = {"chats": [chat_row(chat) for chat in page.chats]}
        if page.next_cursor:
            found["nextCursor"] = page.next_cursor
        return json_response(found)

    async def read_chat(
        self,
        request: Request,
        chatID: str,
        limit: MessageLimit = 50,
        before: BeforeQuery = None,
        user: UserQuery = None,
    ) -> Response:
        """Read a chat and its newest messages, or those before a given one, oldest first."""
        who = asked(request, user, existing=True)
        chat_id = known_id(chatID)
        if before is not None and not is_message_of(chat_id, before):
            raise bad_field("before", "is not the id of a message of this chat")
        page = await self.session.call(
            lambda stub: stub.GetChat,
            pb.GetChatRequest(chat_id=chat_id, limit=limit, before_message_id=before or ""),
            who.metadata,
        )
        return json_response(
            chat_object(page.chat)
            | {
                "messages": [message_object(message) for message in page.messages],
                "hasMore": page.has_more,
            }
        )

    async def change_chat(
        self,
        request: Request,
        chatID: str,
        body: ChatPatch,
        user: UserQuery = None,
    ) -> Response:
        """Change a chat's title."""
        who = asked(request, user, existing=True)
        changed = await self.session.call(
            lambda stub: stub.UpdateChat,
            pb.UpdateChatRequest(chat_id=known_id(chatID), title=body.title),
            who.metadata,
        )
        return json_response(chat_object(changed.chat))

    async def delete_chat(
        self,
        request: Request,
        chatID: str,
        user: UserQuery = None,
    ) -> Response:
        """Delete a chat with all that belongs to it, also a run in progress."""
        who = asked(request, user, existing=True)
        await self.session.call(
            lambda stub: stub.DeleteChat,
            pb.DeleteChatRequest(chat_id=known_id(chatID)),
            who.metadata,
            if_gone_on_retry=pb.DeleteChatResponse(),
        )
        return Response(status_code=204)

    async def rate(
        self,
        request: Request,
        chatID: str,
        messageID: str,
        body: Feedback,
        user: UserQuery = None,
    ) -> Response:
        """Rate an answer; "down" also takes it out of the cache."""
        who = asked(request, user, existing=True)
        chat_id = known_id(chatID)
        if not is_message_of(chat_id, messageID):
            raise Problem("not_found")
        await self.session.call(
            lambda stub: stub.RateMessage,
            pb.RateMessageRequest(
                chat_id=chat_id, message_id=messageID, rating=RATING_BY_NAME[body.rating]
            ),
            who.metadata,
        )
        return Response(status_code=204)
