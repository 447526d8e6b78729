"""The cache's metrics. No label holds an id, a name or a text of anybody's."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

from parley_kit.metrics import STORE_BUCKETS

LOOKUPS: Final = Counter(
    "parley_cache_lookups_total", "Look-ups by verdict and reason.", ["verdict", "reason"]
)
STORES: Final = Counter(
    "parley_cache_stores_total", "Answers offered: `stored`, or why not.", ["outcome"]
)
SHELF_LIVES: Final = Counter(
    "parley_cache_stored_answers_total",
    "Answers stored, by how fast they age: slowly_changing, ordinary, timeless.",
    ["shelf_life"],
)
SERVED_TOKENS: Final = Counter(
    "parley_cache_served_tokens_total",
    "Completion tokens of answers given, which no engine had to make.",
)
INVALIDATIONS: Final = Counter(
    "parley_cache_invalidations_total", "Calls of Invalidate, dry runs apart.", ["outcome"]
)
INVALIDATED_ENTRIES: Final = Counter(
    "parley_cache_invalidated_entries_total", "Entries removed by Invalidate."
)
EVICTED_ENTRIES: Final = Counter(
    "parley_cache_evicted_entries_total", "Entries removed to keep the bounds."
)
EXPIRED_ENTRIES: Final = Counter(
    "parley_cache_expired_entries_total", "Expired entries whose bookkeeping was removed."
)
ENTRIES: Final = Gauge(
    "parley_cache_entries",
    "Entries of all tenants at the last sweep; every replica reports the same number.",
)
BYTES: Final = Gauge(
    "parley_cache_bytes",
    "Bytes reckoned for them; every replica reports the same number.",
)
TENANTS: Final = Gauge("parley_cache_tenants", "Tenants that hold entries, at the last sweep.")
STORE_SECONDS: Final = Histogram(
    "parley_cache_redis_seconds",
    "Duration of one operation on Redis, which may be several commands.",
    ["operation", "outcome"],
    buckets=STORE_BUCKETS,
)
STORE_UP: Final = Gauge(
    "parley_cache_redis_up", "1 while Redis answers; 0 while look-ups no longer try."
)
SEMANTIC: Final = Gauge(
    "parley_cache_semantic_tier", "1 while questions are matched by meaning too; 0: exact only."
)
INDEX_ITEMS: Final = Gauge("parley_cache_index_items", "Vectors held by this replica.")
INDEX_BYTES: Final = Gauge("parley_cache_index_bytes", "Memory of these vectors, about.")
INDEX_BUILT: Final = Gauge(
    "parley_cache_index_built_ratio", "Share of the store read into the index, 1 once it is whole."
)
INDEX_BUILD_SECONDS: Final = Gauge(
    "parley_cache_index_build_seconds",
    "Duration of the last comparison with the store; the first one builds.",
)
INDEX_MENDED: Final = Counter(
    "parley_cache_index_mended_total",
    "Items that comparing with the store added, removed, or found no room for.",
    ["change"],
)
INDEX_EVENTS: Final = Counter(
    "parley_cache_index_events_total", "Changes followed or told.", ["change", "outcome"]
)
INDEX_CANARY: Final = Counter(
    "parley_cache_index_canary_total", "Canaries sought: `found`, or why not.", ["index", "outcome"]
)
INDEX_FALLBACKS: Final = Counter(
    "parley_cache_index_fallbacks_total",
    "Times that another index (`none`: the exact tier alone) took the preferred one's place.",
    ["index"],
)
INDEX_IN_USE: Final = Gauge("parley_cache_index_in_use", "1 for the index in use.", ["index"])
SEMANTIC_SECONDS: Final = Histogram(
    "parley_cache_semantic_seconds",
    "Parts of a look-up by meaning: embed, nominate, check.",
    ["part"],
    buckets=STORE_BUCKETS,
)
DISMISSED: Final = Counter(
    "parley_cache_dismissed_nominees_total",
    "Nominees that the store did not confirm, by why.",
    ["reason"],
)
UNEMBEDDED: Final = Counter(
    "parley_cache_unembedded_total",
    "Answers stored for the exact tier alone, as their question could not be embedded.",
    ["reason"],
)
UNCREDITED: Final = Counter(
    "parley_cache_uncredited_hits_total", "Hits that could not be counted for an entry's worth."
)
LEASES: Final = Counter(
    "parley_cache_leases_total",
    "Single flight: leases taken, ended (answered, released), and what those met who did not "
    "get one.",
    ["outcome"],
)
