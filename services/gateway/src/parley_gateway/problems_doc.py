"""Writes docs/api/errors.md from the table of codes.

``python -m parley_gateway.problems_doc [--check]``: writes it, or says (exit 1)
that the committed one is out of date.
"""

import sys
from pathlib import Path

from parley_gateway.documents import main_for
from parley_gateway.problems import TABLE

_HEAD = """\
# Errors

<!-- Written by `python -m parley_gateway.problems_doc`; do not edit. -->

Every error answer is `application/problem+json` (RFC 9457):

```json
{"type": "/problems/invalid_request", "title": "The request is not valid", "status": 422,
 "detail": "…", "code": "invalid_request", "requestID": "…",
 "errors": [{"field": "options.maxTokens", "message": "…"}]}
```

`code` is stable: act on it, not on the sentences. `requestID` is also in the `X-Request-ID`
header and in the logs. `errors` (at most 20) is there for bad input. `runID` and `chatID` are
there where a run is meant. `Retry-After` is sent with every 429 and 503 and with
`run_in_progress`.

A run that fails after it was accepted ends its stream with a `failed` event, whose data is the
problem object; a JSON caller gets the same object as the answer, with the status of the table.
Nothing of the request needs to be sent again to read what was kept: `GET /runs/{runID}`.

A request that is not HTTP at all (`malformed_request`, `headers_too_large`, `request_timeout`)
is answered and its connection closed.

| code | status | cause | cure |
|---|---|---|---|
"""


def render() -> str:
    """Return the page."""
    rows = sorted(TABLE.items(), key=lambda item: (item[1].status, item[0]))
    return _HEAD + "".join(
        f"| `{code}` | {kind.status} | {kind.cause} | {kind.cure} |\n" for code, kind in rows
    )


if __name__ == "__main__":
    sys.exit(main_for(Path("docs/api/errors.md"), render, sys.argv[1:]))
