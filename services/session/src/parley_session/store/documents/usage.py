"""The ledger of usage and the report as documents, and back.

`day` is the text YYYY-MM-DD, which sorts as the days do. A record that is not in the
report says so by `unreported`, its day once more, so that a sparse index holds no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta

from parley_session.domain.usage import ReportRow, UsageDay, UsageRecord, UserDay
from parley_session.store.documents.fields import Document, Fields, projection

USAGE_SUMS = ("chats", "runs", "promptTokens", "completionTokens", "cachedAnswers")
USER_DAY_FIELDS = projection("day", "tenant", "user")
REPORT_FIELDS = projection("day", "tenant", "user", "model", *USAGE_SUMS)


def usage_to(record: UsageRecord) -> Document:
    """A usage record as a document, ready to be inserted."""
    return {
        "_id": record.id,
        "tenant": record.tenant,
        "user": record.user,
        "day": record.day.isoformat(),
        "model": record.model,
        **sums_to(record),
        "unreported": record.day.isoformat(),
    }


def sums_to(row: UsageRecord | ReportRow) -> dict[str, int]:
    """What is summed, as fields."""
    return {
        "chats": row.chats,
        "runs": row.runs,
        "promptTokens": row.prompt_tokens,
        "completionTokens": row.completion_tokens,
        "cachedAnswers": row.cached_answers,
    }


def sums_from(sums: Fields) -> Mapping[str, int]:
    """What is summed, by the names of the domain."""
    return {
        "chats": int(sums["chats"]),
        "runs": int(sums["runs"]),
        "prompt_tokens": int(sums["promptTokens"]),
        "completion_tokens": int(sums["completionTokens"]),
        "cached_answers": int(sums["cachedAnswers"]),
    }


def usage_day_from(day: str, sums: Fields) -> UsageDay:
    """A day's sums from a row of them."""
    return UsageDay(date.fromisoformat(day), **sums_from(sums))


def user_day_to(whose: UserDay) -> Document:
    """The fields that a user's records of a day have in common."""
    return {"tenant": whose.tenant, "user": whose.user, "day": whose.day.isoformat()}


def user_day_from(document: Fields) -> UserDay:
    """Whose record this is, and of which day."""
    return UserDay(date.fromisoformat(document["day"]), document["tenant"], document["user"])


def report_id(row: ReportRow) -> str:
    """The id of a row: ids sort as rows do, by day, tenant, user and model."""
    return "\0".join((row.day.isoformat(), row.tenant, row.user, row.model))


def report_names(row: ReportRow) -> Document:
    """What a row's sums are of."""
    return {**user_day_to(UserDay(row.day, row.tenant, row.user)), "model": row.model}


def report_from(document: Fields) -> ReportRow:
    """A row of the report from a document."""
    whose = user_day_from(document)
    sums = sums_from(document)
    return ReportRow(whose.day, whose.tenant, whose.user, document["model"], **sums)


def model_row(whose: UserDay, model: str | None, sums: Fields) -> ReportRow:
    """A row of the report from a user's sums of one model."""
    return ReportRow(whose.day, whose.tenant, whose.user, model or "", **sums_from(sums))


def checked_days(first: date, last: date, most: int) -> tuple[str, str]:
    """The bounds as they are stored. ValueError for more than `most` days."""
    if not 0 <= (last - first).days < most:
        raise ValueError(f"usage is summed over 1 to {most} days")
    return first.isoformat(), last.isoformat()


def report_bounds(first: date, last: date, after: ReportRow | None) -> tuple[str, str]:
    """The ids between which the rows of some days are, neither included."""
    begin = first.isoformat() if after is None else report_id(after)
    return begin, (last + timedelta(days=1)).isoformat()
