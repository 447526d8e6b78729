"""`parley.session.v1.SessionService`, all of it."""

from __future__ import annotations

from typing import Final

from parley.session.v1 import session_pb2 as pb

from parley_session.chats import Chats
from parley_session.fleet.base import Fleet
from parley_session.rpc.chat_calls import ChatCalls
from parley_session.rpc.run_calls import RunCalls
from parley_session.rpc.usage_calls import UsageCalls
from parley_session.runs.cancelling import Canceller
from parley_session.runs.deleting import Deleter
from parley_session.runs.following import Follower
from parley_session.runs.starting import Starter
from parley_session.usage import Usage

FULL_NAME: Final = pb.DESCRIPTOR.services_by_name["SessionService"].full_name


class SessionServicer(ChatCalls, RunCalls, UsageCalls):
    """Puts the parts together."""

    def __init__(
        self,
        *,
        chats: Chats,
        deleter: Deleter,
        fleet: Fleet,
        starter: Starter,
        follower: Follower,
        canceller: Canceller,
        usage: Usage,
        replica: str,
    ) -> None:
        self._chats = chats
        self._deleter = deleter
        self._fleet = fleet
        self._starter = starter
        self._follower = follower
        self._canceller = canceller
        self._usage = usage
        self._replica = replica
