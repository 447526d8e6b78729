"""What must hold of a chat's documents, whatever was killed while they were written."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from parley_session.domain.model import Chat, Message, Role, Run

# A question and its answer.
TURN = 2


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: a chat, a stable word, and what it is about."""

    chat: str
    what: str
    about: str


def check_chat(
    chat: Chat, messages: Sequence[Message], runs: Sequence[Run], used: Collection[str]
) -> list[Finding]:
    """Check a chat that is not deleted. `used`: ids that the usage ledger has."""
    by_seq = {message.seq: message for message in messages}
    by_id = {run.id: run for run in runs}
    return [
        Finding(chat.id, what, about)
        for part in (
            _pending(chat),
            _messages(chat, by_seq),
            _runs(chat, by_seq, by_id, used),
        )
        for what, about in part
    ]


def _settled(chat: Chat) -> int:
    """Messages below this have been asked and answered."""
    return chat.pending[0].seq if chat.pending else chat.next_seq


def _pending(chat: Chat) -> list[tuple[str, str]]:
    seqs = [turn.seq for turn in chat.pending]
    if seqs != list(range(_settled(chat), chat.next_seq, TURN)):
        return [("turns_out_of_order", f"turns at {seqs} before {chat.next_seq}")]
    return []


def _messages(chat: Chat, by_seq: Mapping[int, Message]) -> list[tuple[str, str]]:
    settled = _settled(chat)
    found = [("message_missing", f"{seq}") for seq in range(settled) if seq not in by_seq]
    for seq, message in by_seq.items():
        if message.role is not (Role.ASSISTANT if seq % TURN else Role.USER):
            found.append(("message_of_wrong_role", f"{seq}"))
    if chat.message_count != settled:
        found.append(("wrong_message_count", f"{chat.message_count}, and {settled} are settled"))
    return found


def _runs(
    chat: Chat, by_seq: Mapping[int, Message], by_id: Mapping[str, Run], used: Collection[str]
) -> list[tuple[str, str]]:
    waiting = {turn.run for turn in chat.pending}
    found: list[tuple[str, str]] = []
    for run in by_id.values():
        if run.id in waiting:
            continue
        if not run.state.final:
            found.append(("run_without_a_turn", f"{run.id} is {run.state}, and nobody will end it"))
            continue
        answer = by_seq.get(run.seq + 1)
        if answer is not None and (answer.run, answer.content) != (run.id, run.content):
            found.append(("answer_is_not_the_runs", f"{run.id} at {run.seq + 1}"))
        if run.id not in used:
            found.append(("run_without_usage", run.id))
    answered = {run.seq for run in by_id.values()}
    lost = [seq for seq in range(0, _settled(chat), TURN) if seq not in answered]
    return found + [("run_missing", f"of the question at {seq}") for seq in lost]
