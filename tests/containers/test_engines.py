"""The engines' images, as `make images` left them, are started as the chart's pods are, and answer.

`PARLEY_TEST_BUILDER` is the builder that has them; otherwise the first on the PATH.
"""

import os
import time
from pathlib import Path

import pytest
from images import LABEL, ROOT, USER, Builder, Built, Failed, found_builder, version

from support.confined import AS_IT_SHOULD_BE, program
from support.containers import container
from support.inference import ReplicaProcess, connect, generate_request
from support.vllm import model_for_all

pytestmark = pytest.mark.timeout(900)
WEIGHTS = "/models/smol"
START_SECONDS = 600.0
SIM = {"ENGINE": "sim"}
VLLM = {"ENGINE": "vllm", "MODEL": WEIGHTS, "MAX_MODEL_LEN": "1024"}
REPORT = ROOT / "reports" / "images.md"
HEAD = "| image | size | revision | seconds to ready | seconds of the first answer |"


def image(name: str) -> tuple[Builder, str, Built]:
    """An image that was built before. Skips the test where there is none."""
    tag = f"localhost/parley-{name}:{version()}"
    try:
        builder = Builder(os.environ.get("PARLEY_TEST_BUILDER") or found_builder())
        return builder, tag, builder.built(tag)
    except Failed as failure:
        pytest.skip(f"no {tag}, which `make images IMAGES={name}` builds: {failure}")


@pytest.mark.parametrize(
    ("name", "settings", "model"),
    [("inference-base", SIM, "sim"), ("inference-cpu", VLLM, "smol")],
)
async def test_it_is_nobody_on_a_read_only_root_and_answers(
    name: str, settings: dict[str, str], model: str, tmp_path: Path
) -> None:
    builder, tag, built = image(name)
    assert built.user == USER
    folders = {WEIGHTS: model_for_all(tmp_path / "model")} if model == "smol" else {}
    ports = {"PORT": "0", "ADMIN_PORT": "0"}
    environment = {f"PARLEY_INFERENCE_{k}": v for k, v in (settings | ports).items()}
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    with container(
        builder, tag, environment=environment, folders=folders, bundle=bundle
    ) as confined:
        process = ReplicaProcess({}, tmp_path / "log", command=confined.run)
        began = time.monotonic()
        try:
            await process.start(START_SECONDS)
            ready = time.monotonic()
            assert AS_IT_SHOULD_BE in confined.inside(program())
            async with connect(process.port, process.admin_port) as client:
                asked = time.monotonic()
                question = generate_request("Who are you?", model=model, max_tokens=8)
                answer = await client.generate(question, timeout=120.0)
                seconds = time.monotonic() - asked
            assert answer.text.strip()
            assert answer.token_ids
        finally:
            await process.stop()
        assert process.returncode == 0
    note(name, built, ready - began, seconds)


def note(name: str, built: Built, start: float, answer: float) -> None:
    """Leave a row in the report, in place of the image's last."""
    old = REPORT.read_text("utf-8").splitlines()[2:] if REPORT.exists() else []
    revision = built.labels[f"{LABEL}revision"]
    row = f"| {name} | {built.size} | {revision} | {start:.0f} | {answer:.1f} |"
    rows = sorted([row, *(each for each in old if not each.startswith(f"| {name} |"))])
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join([HEAD, "|---|---:|---|---:|---:|", *rows, ""]), "utf-8")
