"""Where somebody's text could flow to telemetry, found by reading the source: from a source to a sink.

Sources are the models' columns that hold text, events' private facts and materials, requests, the
environment, and exceptions. Within each function they are followed through names, containers, formatting and
calls: what is given to a call may be in its result. A call that makes a number, a truth or a member of a
closed list of what it is given ends the flow; so does a name that is declared to be one.

From one function into another they are followed by two things that are found out of each, until nothing more
is found: whose text it may return though it was given none, and which of its parameters it hands to a sink. A
call is followed to functions of its own module (methods by their name), to imported ones, through modules
that only hand them on, and to the models' methods and properties. Not followed: methods of other objects, and
what one method keeps in an attribute and another reads.

Unlike the proof by markers this sees code that no test runs.
"""

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from tests.house.call_sites import called, scopes

SINKS = frozenset({"TelemetryData", "Capture", "Occurrence"})
"""Calls whose arguments are sent, besides those of `send_event` but for its application."""

CLEANING = frozenset(
    {
        *("len", "sum", "bool", "any", "all", "isinstance", "count", "int", "float"),
        *("pseudonym", "pseudonym_uuid", "convert", "construct", "bucket", "duration_bucket"),
        *("count_changes", "schedule_kind", "was_used", "identifier"),
    }
)
"""Calls that make of a text a number, a truth, a pseudonym or a member of a closed list."""

ENVIRONMENT = frozenset(
    {"environ", "getenv", "gethostname", "getfqdn", "getuser", "node", "cwd", "format_exc", "given"}
)
"""Names of what tells of the machine, of a failure, or of the materials of an event."""


Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Told:
    """Which parameters a function of some name hands to a sink, and to which."""

    by: str
    """Where the function is, which tells it from others of its name."""
    positions: list[str]
    rest: tuple[str, str]
    """What takes the other positions, and the other names."""
    sinks: dict[str, str] = field(default_factory=dict)

    def gets(self, call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
        """What of a call's arguments a sink gets. Where it cannot be told which one is meant, all may be."""
        unclear = any(isinstance(a, ast.Starred) for a in call.args) or any(not k.arg for k in call.keywords)
        given = [
            (self.positions[n] if n < len(self.positions) else self.rest[0], a)
            for n, a in enumerate(call.args)
        ]
        for keyword in call.keywords:
            known = keyword.arg in self.positions or keyword.arg in self.sinks
            given.append((keyword.arg if known and keyword.arg else self.rest[1], keyword.value))
        for name, value in given:
            if unclear or name in self.sinks:
                yield self.sinks.get(name, next(iter(self.sinks.values()))), value


MODELS = "orchest.models"
"""Where methods and properties are that are followed from everywhere, by their names."""


@dataclass(frozen=True)
class Module:
    """A module's name, its tree, and what its names that are imported stand for."""

    file: str
    name: str
    tree: ast.Module
    imported: Mapping[str, str]

    @classmethod
    def of(cls, file: str, source: str) -> "Module":
        tree = ast.parse(source)
        name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        imported: dict[str, str] = {}
        for node in ast.walk(tree):
            match node:
                case ast.Import(names=names):
                    imported |= {one.asname: one.name for one in names if one.asname}
                case ast.ImportFrom(module=str(where), names=names):
                    imported |= {one.asname or one.name: f"{where}.{one.name}" for one in names}
        return cls(file, name, tree, imported)

    def functions(self) -> Iterator[tuple[list[str], Function]]:
        """Every function with the names it may be called by. A class's own name calls its `__init__`."""
        owners = {
            id(one): node.name
            for node in ast.walk(self.tree)
            if isinstance(node, ast.ClassDef)
            for one in node.body
        }
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                owner = owners.get(id(node))
                if owner and node.name == "__init__":
                    yield [f"{self.name}.{owner}"], node
                else:
                    of_models = owner is not None and self.name.startswith(MODELS)
                    yield (
                        (
                            [f"{self.name}.{node.name}"]
                            + [f"{self.name}.{owner}.{node.name}"] * (owner is not None)
                            + [f"{MODELS}.{node.name}"] * of_models
                        ),
                        node,
                    )


@dataclass
class Flows:
    """The flows of some modules. ``columns`` are the names of the models' columns that can hold a text."""

    columns: frozenset[str]
    returning: dict[str, str] = field(default_factory=dict)
    """Functions that return somebody's text, and whose."""
    telling: dict[str, list[Told]] = field(default_factory=dict)
    """Functions that hand to a sink what they are given."""
    modules: dict[str, Module] = field(default_factory=dict)
    here: Module = field(default_factory=lambda: Module.of("", ""))
    sources: bool = True

    def of(self, files: Iterable[tuple[str, str]]) -> list[str]:
        """Each flow as ``file:line: sink gets source``; ``files`` are names and sources."""
        made = [Module.of(*one) for one in files]
        self.modules = {one.name: one for one in made}
        functions = [(one, list(one.functions())) for one in made]
        before = -1
        while (known := self.known()) > before:
            before = known
            for module, its_own in functions:
                self.here = module
                for names, function in its_own:
                    self.look_at(names, function)
        return [flow for module in made for flow in self.within(module)]

    def within(self, module: Module) -> Iterator[str]:
        self.here = module
        for scope in scopes(module.tree):
            for sink, value, origin in self.leaks(scope, self.names(scope)):
                yield f"{module.file}:{value.lineno}: {sink} gets {origin}"

    def known(self) -> int:
        return len(self.returning) + sum(len(one.sinks) for many in self.telling.values() for one in many)

    def meant(self, call: ast.Call) -> str:
        """The function that is called, by its module and name; empty where that cannot be told."""
        match call.func:
            case ast.Name(id=name):
                full = self.here.imported.get(name, f"{self.here.name}.{name}")
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(), attr=name):
                full = f"{self.here.name}.{name}"
            case ast.Attribute(value=ast.Name(id=owner), attr=name) if owner in self.here.imported:
                full = f"{self.here.imported[owner]}.{name}"
            case ast.Attribute(attr=name):
                full = f"{MODELS}.{name}"
            case _:
                return ""
        while full not in self.returning and full not in self.telling:
            module, _, name = full.rpartition(".")
            handed_on = self.modules[module].imported.get(name) if module in self.modules else None
            if handed_on is None:
                return full
            full = handed_on
        return full

    def look_at(self, names: list[str], function: Function) -> None:
        """Find out what a function returns and hands on, with what is known of the others by now."""
        if names[0] not in self.returning:
            tainted = self.names(function)
            for node in own_and_nested(function):
                match node:
                    case ast.Return(value=ast.expr() as value) | ast.Yield(value=ast.expr() as value):
                        if origin := self.origin(value, tainted):
                            self.returning |= dict.fromkeys(names, origin)
        if any(True for node in own_and_nested(function) for _ in self.sinks(function, node)):
            self.look_at_parameters(names, function)

    def look_at_parameters(self, names: list[str], function: Function) -> None:
        given = replace(self, columns=frozenset(), sources=False)
        told = signature(function)
        for parameter in [
            *told.positions,
            *(a.arg for a in function.args.kwonlyargs),
            *filter(None, told.rest),
        ]:
            for sink, _, _ in given.leaks(function, given.names(function, {parameter: parameter})):
                told.sinks.setdefault(parameter, sink)
        if told.sinks:
            for name in names:
                self.telling[name] = [one for one in self.telling.get(name, []) if one.by != told.by] + [told]

    def leaks(self, scope: ast.AST, tainted: dict[str, str]) -> Iterator[tuple[str, ast.expr, str]]:
        """What a function hands to telemetry, to which sink, and whose it is."""
        for node in own_and_nested(scope):
            for sink, value in self.sinks(scope, node):
                if origin := self.origin(value, tainted):
                    yield sink, value, origin

    def sinks(self, scope: ast.AST, node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
        """What a node hands to telemetry, by itself or by a function it calls."""
        yield from sinks(scope, node)
        if isinstance(node, ast.Call) and called(node) not in (*SINKS, "send_event"):
            for told in self.telling.get(self.meant(node), ()):
                yield from told.gets(node)

    def names(self, scope: ast.AST, given: dict[str, str] | None = None) -> dict[str, str]:
        """The names of a function that hold somebody's text, and whose: until nothing more is found."""
        tainted: dict[str, str] = dict(given or {})
        before = -1
        while len(tainted) > before:
            before = len(tainted)
            for node in own_and_nested(scope):
                for target, value in bindings(node):
                    if isinstance(value, str):
                        if self.sources:
                            tainted.setdefault(target, value)
                    elif origin := self.origin(value, tainted):
                        tainted.setdefault(target, origin)
        return tainted

    def origin(self, node: ast.AST, tainted: dict[str, str]) -> str:
        """Whose text an expression may hold; empty if nobody's."""
        match node:
            case ast.Call() if called(node) in CLEANING:
                return ""
            case ast.Call() if self.sources and called(node) in ENVIRONMENT:
                return f"{called(node)}()"
            case ast.Call() if self.sources and self.meant(node) in self.returning:
                return f"{called(node)}(), which returns {self.returning[self.meant(node)]}"
            case ast.Attribute(attr=name) if self.sources and f"{MODELS}.{name}" in self.returning:
                return f"{ast.unparse(node)}, which is {self.returning[f'{MODELS}.{name}']}"
            case ast.Compare() | ast.Lambda() | ast.Constant():
                return ""
            case ast.IfExp(body=one, orelse=other):  # which of the two, a text may say; what, it does not
                return self.origin(one, tainted) or self.origin(other, tainted)
            case ast.Attribute(attr=name) if self.sources and name in ENVIRONMENT:
                return name
            case ast.Attribute(value=ast.Name(id="request")) if self.sources:
                return ast.unparse(node)
            case ast.Attribute(attr=name) if name in self.columns and not of_a_class(node):
                return ast.unparse(node)
            case ast.Name(id=name):
                return tainted.get(name, "")
        return next(filter(None, (self.origin(child, tainted) for child in ast.iter_child_nodes(node))), "")


def signature(function: Function) -> Told:
    arguments = function.args
    positions = [a.arg for a in [*arguments.posonlyargs, *arguments.args]]
    rest = tuple(one.arg if one else "" for one in (arguments.vararg, arguments.kwarg))
    return Told(
        f"{function.name}:{function.lineno}",
        positions[positions[:1] in (["self"], ["cls"]) :],
        (rest[0], rest[1]),
    )


def of_a_class(node: ast.Attribute) -> bool:
    """``Job.name`` is a column, not a row's text."""
    return isinstance(node.value, ast.Name) and node.value.id[:1].isupper()


@cache
def own_and_nested(scope: ast.AST) -> list[ast.AST]:
    """The nodes of a function; of a module only what is outside of its functions."""
    found: list[ast.AST] = []
    waiting = [scope]
    while waiting:
        inner = [
            one for one in ast.iter_child_nodes(waiting.pop()) if not isinstance(one, Function | ast.ClassDef)
        ]
        found += inner
        waiting += inner
    return found


def bindings(node: ast.AST) -> Iterator[tuple[str, ast.expr | str]]:
    """What a statement binds to a name: an expression, or the source itself as a text."""
    match node:
        case ast.Assign(targets=targets, value=value):
            yield from ((name, value) for target in targets for name in bound(target))
        case ast.AnnAssign(annotation=ast.Name(id="int" | "float" | "bool")):
            return
        case ast.AnnAssign(target=target, value=ast.expr() as value):
            yield from ((name, value) for name in bound(target))
        case ast.NamedExpr(target=target, value=value):
            yield from ((name, value) for name in bound(target))
        case ast.AugAssign(target=target, value=value):
            yield from ((name, value) for name in bound(target))
        case ast.For(target=target, iter=value) | ast.AsyncFor(target=target, iter=value):
            yield from ((name, value) for name in bound(target))
        case ast.comprehension(target=target, iter=value):
            yield from ((name, value) for name in bound(target))
        case ast.withitem(context_expr=value, optional_vars=ast.expr() as target):
            yield from ((name, value) for name in bound(target))
        case ast.ExceptHandler(name=str(name)):
            yield name, "an exception"
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method), args=args)):
            if method in ("append", "extend", "update", "add", "setdefault", "insert"):
                yield from ((name, value) for value in args)


def bound(target: ast.expr) -> Iterator[str]:
    """The names a target binds; what is stored in a part of something is held by the whole."""
    match target:
        case ast.Name(id=name):
            yield name
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                yield from bound(part)
        case ast.Starred(value=value) | ast.Subscript(value=value) | ast.Attribute(value=value):
            yield from bound(value)


def sinks(scope: ast.AST, node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """What a node hands to telemetry, and to which sink."""
    match node:
        case ast.Call(args=[_, *args], keywords=keywords) if called(node) == "send_event":
            yield from ((called(node), value) for value in [*args, *(k.value for k in keywords)])
        case ast.Call(args=args, keywords=keywords) if called(node) in SINKS:
            yield from ((called(node), value) for value in [*args, *(k.value for k in keywords)])
        case ast.Call(keywords=keywords) if called(node) == "values":
            yield from (("insert", k.value) for k in keywords if k.arg == "telemetry")
        case ast.Return(value=ast.expr() as value) if is_measure(scope):
            yield "measure", value


def is_measure(scope: ast.AST) -> bool:
    """Whether what the function returns is sent: a measure, or a derived value declared anonymous."""
    decorators: Iterable[ast.expr] = getattr(scope, "decorator_list", ())
    for decorator in decorators:
        name = ast.unparse(decorator)
        if name.startswith("measure") or (name.startswith("derived(") and "anonymous=True" in name):
            return True
    return False
