"""Domain objects as stored documents, and back: the one place that knows field names.

Names are camelCase. Times are BSON dates: UTC, whole milliseconds. Reading ignores
fields that it does not know and fills those that are missing with the domain's
defaults, so that replicas of two versions can share a database.

Some fields exist only for queries and are derived here:

- `chats.busySince`: when the first pending turn was accepted; absent if none is
- `chats.revision`: grows with every write, for compare-and-set
- `runs.final`, `runs.frozen`: the state is final, the prompt is fixed
"""
