"""Ids are UUIDv7: canonical, unique, and in order."""

import uuid

import pytest

from parley_kit.ids import is_uuid, uuid7

# Fixed: tests have the same names in every process that collects them.
ID = "01a1ff29-ace5-7227-a26a-da47d52ac0a6"


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
        ID.upper(),
        ID.replace("-", ""),
        ID + "\n",
        "{" + ID + "}",
        "urn:uuid:" + ID,
        ID.replace("-", "‐"),
    ],
)
def test_only_the_canonical_form_is_an_id(text: str) -> None:
    assert is_uuid(ID)
    assert not is_uuid(text)
