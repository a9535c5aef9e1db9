"""Where the source records events and captures telemetry, found by reading its syntax trees."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

CAPTURING = ("send_event", "send")
MADE_BY = {
    "job_event": ("OneOffJobEvent", "CronJobEvent"),
    "pipeline_run_event": (
        "CronJobPipelineRunEvent",
        "OneOffJobPipelineRunEvent",
        "InteractivePipelineRunEvent",
    ),
}
"""Functions that make an event of one of several classes, by their first argument, the verb."""

MUTATING = frozenset({"pop", "popitem", "clear", "copy", "deepcopy", "discard", "remove"})
TRACKED = re.compile(r"""\btrack\(\s*["']([^"']+)["']""")


@dataclass(frozen=True)
class Site:
    """A call that sends or records: ``what`` is a member of the enumeration, a type, or a class and verb."""

    where: str
    what: str


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def captures(name: str, source: str) -> Iterator[Site]:
    """Members of an ``Event`` enumeration and literal types that are given to `send_event` or `send`.

    A variable stands for every member its function assigns it.
    """
    tree = ast.parse(source)
    for scope in scopes(tree):
        for call in (c for c in own(scope) if isinstance(c, ast.Call) and called(c) in CAPTURING):
            for argument in call.args[:2]:
                for expression in meant(scope, argument):
                    yield from (Site(f"{name}:{call.lineno}", what) for what in members(expression))


def scopes(tree: ast.AST) -> Iterator[ast.AST]:
    yield tree
    yield from (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


def own(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function that are not of a function within it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from own(child)


def meant(scope: ast.AST, expression: ast.expr) -> Iterator[ast.expr]:
    if not isinstance(expression, ast.Name):
        yield expression
        return
    for node in own(scope):
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == expression.id for t in node.targets
        ):
            yield node.value


def members(expression: ast.expr) -> Iterator[str]:
    match expression:
        case ast.Attribute(value=ast.Name(id="Event"), attr=member):
            yield member
        case ast.Attribute(value=ast.Attribute(attr="Event"), attr=member):
            yield member
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=one, orelse=other):
            yield from members(one)
            yield from members(other)


def recordings(name: str, source: str, classes: Iterable[str]) -> Iterator[Site]:
    """``class:verb`` for each event that is made with a literal verb; ``class:*`` with a computed one."""
    known = set(classes)
    for call in calls(ast.parse(source)):
        made = MADE_BY.get(called(call), (called(call),) if called(call) in known else ())
        if call.args:
            for cls in made:
                for verb in verbs(call.args[0]):
                    yield Site(f"{name}:{call.lineno}", f"{cls}:{verb}")


def verbs(expression: ast.expr) -> list[str]:
    match expression:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.IfExp(body=one, orelse=other):
            return [*verbs(one), *verbs(other)]
    return ["*"]


def tracked(name: str, source: str) -> Iterator[Site]:
    """Types that browser code tracks."""
    for number, line in enumerate(source.splitlines(), 1):
        if not line.lstrip().startswith(("//", "*", "/*")):
            yield from (Site(f"{name}:{number}", found) for found in TRACKED.findall(line))


def unmaking(name: str, source: str, allowed: Mapping[str, str] | None = None) -> Iterator[str]:
    """Where a projection takes keys away, or copies something to change it, instead of constructing anew.

    ``allowed`` holds expressions that do something else, each with its reason.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr=method)) if method in MUTATING:
                pass
            case ast.Call(func=ast.Name(id="copy" | "deepcopy")):
                pass
            case ast.Delete(targets=targets) if any(isinstance(t, ast.Subscript) for t in targets):
                pass
            case _:
                continue
        found = ast.unparse(node)
        if not any(f"{name} {found}" == known for known in allowed or {}):
            yield f"{name}:{node.lineno}: {found}"


def python_files(*roots: Path) -> Iterator[tuple[str, str]]:
    for root in roots:
        for path in [root] if root.is_file() else sorted(root.rglob("*.py")):
            yield path.name if root.is_file() else str(path.relative_to(root.parent)), path.read_text("utf-8")
