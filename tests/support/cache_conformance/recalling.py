"""What the semantic tier reads, and what its index is told."""

from __future__ import annotations

from parley_cache.keys import entry_key, tenant_name
from parley_cache.model import Meaning, Recalled, Selector
from parley_cache.store.base import Limits, Removed
from support.cache_store import NOBODY, TENANT, Clock, MakeStore, entry_for, put, query


class Recalling:
    """Give the fixtures `make_store` and `clock`."""

    async def test_a_nominated_entry_is_recalled_only_while_it_stands(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store, other = make_store(), make_store()
        key, entry, sources = entry_for(clock, query())
        meaning = Meaning("space", "What is a heron?", b"\x00\x00\x80\x3f")
        await store.put(key, entry, sources, NOBODY, meaning)
        plain = entry_key(query("no meaning")).entry_id
        await put(store, clock, query("no meaning"))
        ids = ["unknown", key.entry_id, plain]
        assert await other.recall(TENANT, ids) == [None, Recalled(entry, meaning), None]
        assert await other.recall(tenant_name("globex"), ids) == [None, None, None]
        assert await store.meanings(TENANT, ids) == {key.entry_id: meaning}
        assert sorted([i async for page in store.ids(TENANT) for i in page]) == sorted(ids[1:])
        assert await store.tenants() == {TENANT: 2}
        # Replaced by one without a meaning, none is left of the first.
        await store.put(key, entry, sources, NOBODY)
        assert await other.recall(TENANT, [key.entry_id]) == [None]
        await store.put(key, entry, sources, NOBODY, meaning)
        await store.invalidate(TENANT, Selector(all=True), dry_run=False)
        assert await other.recall(TENANT, [key.entry_id]) == [None]
        stamp = (await store.get(key)).stamp
        assert (await store.put(key, entry, sources, stamp, meaning)).stored
        assert await other.recall(TENANT, [key.entry_id]) == [Recalled(entry, meaning)]
        clock.advance(200)
        assert await other.recall(TENANT, [key.entry_id]) == [None]

    async def test_what_leaves_is_told_so_that_the_index_forgets_it(
        self, make_store: MakeStore, clock: Clock
    ) -> None:
        store = make_store(Limits(10**9, 10**6, tenant_bytes=10**9, tenant_entries=3))
        told: list[Removed] = []
        store.listen(told.extend)

        async def keep(question: str, space: str, **more: object) -> str:
            key, entry, sources = entry_for(clock, query(question), **more)  # type: ignore[arg-type]
            await store.put(key, entry, sources, NOBODY, Meaning(space, question, b"1234"))
            return entry.entry_id

        invalidated = await keep("one", "s1", chat="c1")
        await put(store, clock, query("two"), chat="c1")
        await store.invalidate(TENANT, Selector(chat_id="c1"), dry_run=True)
        assert not told
        await store.invalidate(TENANT, Selector(chat_id="c1"), dry_run=False)
        assert told == [Removed(TENANT, "s1", invalidated)]
        told.clear()
        expired = await keep("three", "s2", ttl=10.0)
        evicted = await keep("four", "s3")
        clock.advance(20)
        await store.sweep()
        assert told == [Removed(TENANT, "s2", expired)]
        told.clear()
        for number in range(3):
            clock.advance(1)
            await put(store, clock, query(f"q{number}"), tokens=100)
        assert told == [Removed(TENANT, "s3", evicted)]
        told.clear()
        await store.invalidate(TENANT, Selector(all=True), dry_run=False)
        assert Removed(TENANT, "", "") in told
