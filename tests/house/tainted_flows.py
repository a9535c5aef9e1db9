"""Where somebody's text could flow to telemetry, found by reading the source: from a source to a sink.

Sources are the models' columns that hold text, events' private facts and materials, requests, the
environment, and exceptions. Within each function they are followed through names, containers, formatting and
calls. A call that makes a number, a truth or a member of a closed list of what it is given ends the flow; so
does a name that is declared to be one. Unlike the proof by markers this sees code that no test runs; from one
function into another it does not see.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

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


@dataclass
class Flows:
    """The flows of one module. ``columns`` are the names of the models' columns that can hold a text."""

    columns: frozenset[str]
    found: list[str] = field(default_factory=list)

    def of(self, name: str, source: str) -> list[str]:
        """Each flow as ``file:line: sink gets source``."""
        tree = ast.parse(source)
        for scope in scopes(tree):
            tainted = self.names(scope)
            for node in own_and_nested(scope):
                for sink, value in sinks(scope, node):
                    if origin := self.origin(value, tainted):
                        self.found.append(f"{name}:{value.lineno}: {sink} gets {origin}")
        return self.found

    def names(self, scope: ast.AST) -> dict[str, str]:
        """The names of a function that hold somebody's text, and whose: until nothing more is found."""
        tainted: dict[str, str] = {}
        before = -1
        while len(tainted) > before:
            before = len(tainted)
            for node in own_and_nested(scope):
                for target, value in bindings(node):
                    if isinstance(value, str):
                        tainted.setdefault(target, value)
                    elif origin := self.origin(value, tainted):
                        tainted.setdefault(target, origin)
        return tainted

    def origin(self, node: ast.AST, tainted: dict[str, str]) -> str:
        """Whose text an expression may hold; empty if nobody's."""
        match node:
            case ast.Call() if called(node) in CLEANING:
                return ""
            case ast.Call() if called(node) in ENVIRONMENT:
                return f"{called(node)}()"
            case ast.Compare() | ast.Lambda() | ast.Constant():
                return ""
            case ast.IfExp(body=one, orelse=other):  # which of the two, a text may say; what, it does not
                return self.origin(one, tainted) or self.origin(other, tainted)
            case ast.Attribute(attr=name) if name in ENVIRONMENT:
                return name
            case ast.Attribute(value=ast.Name(id="request")):
                return ast.unparse(node)
            case ast.Attribute(attr=name) if name in self.columns and not of_a_class(node):
                return ast.unparse(node)
            case ast.Name(id=name):
                return tainted.get(name, "")
        return next(filter(None, (self.origin(child, tainted) for child in ast.iter_child_nodes(node))), "")


def of_a_class(node: ast.Attribute) -> bool:
    """``Job.name`` is a column, not a row's text."""
    return isinstance(node.value, ast.Name) and node.value.id[:1].isupper()


def own_and_nested(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function; of a module only what is outside of its functions."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield child
            yield from own_and_nested(child)


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
