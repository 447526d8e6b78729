"""What alerts and dashboards ask for is what a running platform says."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
from chart_schema import CHART
from prometheus_client.parser import text_string_to_metric_families

from e2e import flows
from parley_devstack.stack import Stack

FILES: list[Path] = [
    *sorted((CHART / "files").glob("dashboards/*.json")),
    CHART / "files" / "alerts.yaml",
]
# Labels that Prometheus adds, and that of a histogram's buckets.
ADDED = {"namespace", "pod", "le"}
# A metric with its matchers, and what it is summed by: `sum by (a, b) (rate(name{…}`.
MATCHED = re.compile(r"(parley_[a-z_]+)\s*\{([^}]*)\}")
LABEL = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")
SUMMED = re.compile(r"by \(([a-z_, ]+)\)\s*\(\s*(?:[a-z_]+\(\s*)?(parley_[a-z_]+)")


def asked() -> dict[str, set[str]]:
    """The names that are asked for, each with its labels."""
    found: dict[str, set[str]] = {}
    for path in FILES:
        # The chart's own templates inside of matchers are no labels.
        text = re.sub(r"\{\{.*?\}\}", "", path.read_text("utf-8")).replace('\\"', '"')
        for name in re.findall(r"\bparley_[a-z_]+", text):
            found.setdefault(name, set())
        for name, matchers in MATCHED.findall(text):
            found[name] |= set(LABEL.findall(matchers)) - ADDED
        for labels, name in SUMMED.findall(text):
            found[name] |= {label.strip() for label in labels.split(",")} - ADDED
    return found


async def said(stack: Stack) -> tuple[set[str], dict[str, set[str]]]:
    """The names of a whole scrape, and the labels of those with samples."""
    names: set[str] = set()
    labels: dict[str, set[str]] = {}
    async with httpx.AsyncClient(trust_env=False) as http:
        for kind in ("gateway", "session", "cache", "inference"):
            for part in stack.names_of(kind):
                text = (await http.get(f"http://{stack.plan(part).admin}/metrics")).text
                for family in text_string_to_metric_families(text):
                    endings = ("", "_total", "_bucket", "_count", "_sum", "_created")
                    names |= {family.name + ending for ending in endings}
                    for sample in family.samples:
                        labels.setdefault(sample.name, set()).update(sample.labels)
    return names, labels


async def test_every_metric_and_label_that_is_asked_for_is_in_a_live_scrape(
    sim_stack: Stack,
) -> None:
    async with flows.client(sim_stack.url) as http:
        for _ in range(2):
            await flows.ask(http, "/chat", "What is measured?", options={"temperature": 0})
        await flows.stream(http, "/chat", "And streamed?")
    names, labels = await said(sim_stack)
    wanted = asked()
    assert len(wanted) > 20
    assert set(wanted) - names == set()
    wrong = {
        name: missing
        for name, asked_for in wanted.items()
        if name in labels and (missing := asked_for - labels[name])
    }
    assert wrong == {}
    # Most have been said something of by now, so that their labels were compared.
    assert len([name for name in wanted if name in labels]) > len(wanted) / 2
