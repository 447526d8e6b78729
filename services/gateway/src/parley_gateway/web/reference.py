"""`/docs`: the OpenAPI document as a page to read, whole in itself.

It loads nothing from anywhere, not even a script, so it works where there is no
internet, and its content policy forbids everything but its own style.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

_STYLE: Final = (
    ":root{color-scheme:light dark}"
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "code,pre{font-family:ui-monospace,monospace;font-size:.9em}"
    "pre{padding:.75rem;overflow:auto;border:1px solid;border-radius:4px}"
    "h2{margin-top:2.5rem}h2 b{font-weight:700}"
    "td{padding:.15rem 1rem .15rem 0;vertical-align:top}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def render(document: Mapping[str, Any]) -> str:
    """Return the page of an OpenAPI document."""
    info, schemas = document["info"], document["components"]["schemas"]
    calls = [
        (method.upper(), path, call)
        for path, methods in document["paths"].items()
        for method, call in methods.items()
    ]
    title = escape(f"{info['title']} {info['version']}")
    return "\n".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            f"<title>{title}</title><style>{_STYLE}</style></head><body>",
            f"<h1>{title}</h1>",
            *(f"<p>{_text(part)}</p>" for part in info["description"].strip().split("\n\n")),
            '<p>For tools: <a href="/openapi.json">openapi.json</a>.</p><ul>',
            *(
                f'<li><a href="#{escape(call["operationId"])}">{method} {escape(path)}</a></li>'
                for method, path, call in calls
            ),
            "</ul>",
            *(_call(method, path, call, schemas) for method, path, call in calls),
            "</body></html>\n",
        )
    )


def _call(method: str, path: str, call: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    parts = [
        f'<h2 id="{escape(call["operationId"])}"><b>{method}</b> <code>{escape(path)}</code></h2>',
        f"<p>{_text(call['description'])}</p>",
    ]
    if parameters := call.get("parameters"):
        parts += ["<h3>Parameters</h3>", _table(map(_parameter, parameters))]
    if body := call.get("requestBody"):
        content = body["content"]["application/json"]
        schema = content["schema"]
        shape = schemas[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        parts += ["<h3>Body</h3>", _table(_fields(shape))]
        parts += [_example(name, example) for name, example in content.get("examples", {}).items()]
    answers = ((f"<b>{code}</b>", _text(a["description"])) for code, a in call["responses"].items())
    return "\n".join((*parts, "<h3>Answers</h3>", _table(answers)))


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, ...]:
    needed = "required" if parameter.get("required") else ""
    about = parameter.get("description") or parameter["schema"].get("description", "")
    return f"<code>{escape(parameter['name'])}</code>", parameter["in"], needed, _text(about)


def _fields(shape: Mapping[str, Any]) -> Iterable[tuple[str, ...]]:
    required = shape.get("required", ())
    for name, field in shape.get("properties", {}).items():
        needed = "required" if name in required else ""
        yield f"<code>{escape(name)}</code>", needed, _text(field.get("description", ""))


def _example(name: str, example: Mapping[str, Any]) -> str:
    value = json.dumps(example["value"], indent=2, ensure_ascii=False)
    return f"<p>{_text(example.get('summary', name))}:</p><pre>{escape(value)}</pre>"


def _table(rows: Iterable[tuple[str, ...]]) -> str:
    cells = ("".join(f"<td>{cell}</td>" for cell in row) for row in rows)
    return "<table>" + "".join(f"<tr>{row}</tr>" for row in cells) + "</table>"


def _text(markdown: str) -> str:
    """Escape a sentence; what stands in backticks is code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(markdown))
