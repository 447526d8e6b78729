"""Ids are UUIDv7: canonical, unique, and in order."""

import uuid

import pytest

from parley_kit.ids import is_uuid, uuid7


def test_ids_are_version_7_and_sort_by_time() -> None:
    made = [uuid7() for _ in range(1000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert {uuid.UUID(text).version for text in made} == {7}
    assert all(is_uuid(text) for text in made)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        uuid7().upper(),
        uuid7().replace("-", ""),
        uuid7() + "\n",
        "{" + uuid7() + "}",
        "urn:uuid:" + uuid7(),
        uuid7().replace("-", "‐"),
    ],
)
def test_only_the_canonical_form_is_an_id(text: str) -> None:
    assert not is_uuid(text)
