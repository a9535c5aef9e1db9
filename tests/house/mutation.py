"""How much of a projection its tests hold: small changes of its source, each of which some test must notice.

    make mutants                                every module below, an hour on two cores
    make mutants ARGS="clarion.gate"            one of them
    make mutants ARGS="--every 3"               of each module each third mutant, and every leak

A mutant swaps a comparison, an arithmetic or a boolean operation, negates a condition, changes a constant, or
returns nothing; a leak mutant returns what a function was given as it is. Each runs in a process forked after
the libraries were loaded, so that it costs its tests and little more. Exits 1 if fewer than `ENOUGH` are
noticed, or any leak is not.
"""

import argparse
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parents[2]
ENOUGH = 0.9
TIMEOUT = 120
"""Seconds after which a mutant counts as noticed: it does not end."""

VALUES = "tests/orchest/test_events_values.py"
EVENTS = ("tests/orchest/test_events.py", "tests/orchest/test_golden.py")
TARGETS: dict[str, tuple[str, ...]] = {
    "clarion.anonymous": ("tests/clarion/test_anonymous.py", "tests/clarion/test_gate.py"),
    "clarion.analytics.payload": ("tests/clarion/test_analytics_payload.py",),
    "clarion.envelope": ("tests/clarion/test_envelope.py",),
    "clarion.captured": ("tests/clarion/test_captured.py", "tests/clarion/test_upkeep.py"),
    "clarion.gate": ("tests/clarion/test_gate.py",),
    "orchest.events.changes": (VALUES,),
    "orchest.events.schedules": (VALUES,),
    "orchest.shape": ("tests/orchest/test_shape.py",),
    "orchest.events.materials": EVENTS,
    "orchest.events.projects": EVENTS,
    "orchest.events.builds": EVENTS,
    "orchest.events.sessions": EVENTS,
    "orchest.events.jobs": EVENTS,
}
"""The modules that make what telemetry sends, and the tests that must notice."""

RAW = ("value", "text", "identifier", "given", "count", "seconds")
"""Arguments that a leak mutant returns as they are."""

SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """One changed module: where, what was changed, and whether it lets out what it was given."""

    line: int
    change: str
    tree: ast.Module
    leak: bool = False


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module, each with one change."""
    for number, node in enumerate(list(ast.walk(ast.parse(source)))):
        for variant in range(variants(node)):
            tree = ast.parse(source)
            skipped = untold(tree)
            changed = list(ast.walk(tree))[number]
            if id(changed) in skipped:
                continue
            before = ast.unparse(changed)
            leak = change(changed, variant, function_of(tree, changed))
            if leak is None:
                continue
            ast.fix_missing_locations(tree)
            line = getattr(changed, "lineno", 0)
            after = ast.unparse(changed)
            yield Mutant(line, f"{before.splitlines()[0]} -> {after.splitlines()[0]}", tree, leak)


def variants(node: ast.AST) -> int:
    match node:
        case ast.Return(value=ast.expr()):
            return 2
        case ast.Compare() | ast.BoolOp() | ast.BinOp() | ast.Constant() | ast.If() | ast.IfExp():
            return 1
        case ast.UnaryOp(op=ast.Not()):
            return 1
    return 0


def untold(tree: ast.Module) -> set[int]:
    """What is only said to people: docstrings, messages, what a field is and what for; and annotations.

    And how a dataclass is laid out in memory, which changes nothing of what it says.
    """
    told: list[ast.AST] = []
    for node in ast.walk(tree):
        match node:
            case (
                ast.Expr(value=ast.Constant())
                | ast.Raise()
                | ast.JoinedStr()
                | ast.Import()
                | ast.ImportFrom()
            ):
                told.append(node)
            case ast.keyword(arg="doc" | "purpose" | "match" | "frozen" | "slots"):
                told.append(node)
            case ast.Call(func=ast.Name(id="kept" | "Never" | "TypeVar" | "shape_count")):
                told.append(node)
            case ast.Assign(targets=[ast.Name(id="verbs" | "__all__")]):
                told.append(node)
            case ast.AnnAssign(annotation=annotation):
                told.append(annotation)
            case ast.FunctionDef(args=arguments, returns=returns):
                told += [a.annotation for a in [*arguments.args, *arguments.kwonlyargs] if a.annotation]
                told += [returns] if returns else []
    return {id(inner) for node in told for inner in ast.walk(node)}


def function_of(tree: ast.Module, wanted: ast.AST) -> ast.FunctionDef | None:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and any(inner is wanted for inner in ast.walk(node)):
            found = node
            inner = function_of(ast.Module(node.body, []), wanted)
            return inner or found
    return None


def change(node: ast.AST, variant: int, function: ast.FunctionDef | None) -> bool | None:
    """Change ``node`` where it stands. Whether that is a leak; None if there is nothing to change."""
    match node:
        case ast.Return(value=ast.expr() as value) if variant == 0:
            if isinstance(value, ast.Constant) and not value.value:
                return None  # no more than another word for it
            node.value = ast.Constant(None)
        case ast.Return(value=ast.expr() as value):
            names = [a.arg for a in function.args.args] if function else []
            raw = next((name for name in RAW if name in names), None)
            if raw is None or isinstance(value, ast.Constant) or ast.unparse(value) == raw:
                return None
            node.value = ast.Name(raw, ast.Load())
            return True
        case ast.Compare(ops=[op, *_]):
            node.ops[0] = SWAPPED[type(op)]()  # type: ignore[call-overload]
        case ast.BoolOp(op=op):
            node.op = SWAPPED[type(op)]()  # type: ignore[assignment]
        case ast.BinOp(op=op) if type(op) in SWAPPED:
            node.op = SWAPPED[type(op)]()  # type: ignore[assignment]
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            node.operand = ast.UnaryOp(ast.Not(), operand)
        case ast.If(test=test) | ast.IfExp(test=test):
            node.test = ast.UnaryOp(ast.Not(), test)
        case ast.Constant(value=bool(value)):
            node.value = not value
        case ast.Constant(value=int(value)):
            node.value = value + 1
        case ast.Constant(value=str(value)) if value and not value.endswith("."):  # a sentence is for people
            node.value = f"{value}x"
        case _:
            return None
    return False


class Changed(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Has one module imported from a changed tree."""

    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self.name, self.path = name, path
        self.code: CodeType = compile(tree, str(path), "exec")

    def find_spec(self, name: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        return importlib.util.spec_from_file_location(name, self.path, loader=self)

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


def noticed(name: str, path: Path, mutant: Mutant | None, tests: tuple[str, ...]) -> bool:
    """Whether the tests fail with this mutant, in a process of its own; without one, whether they fail."""
    child = os.fork()
    if child == 0:
        quiet = os.open(os.devnull, os.O_WRONLY)
        for out in (1, 2):
            os.dup2(quiet, out)
        status = 1
        try:
            if mutant is not None:
                sys.meta_path.insert(0, Changed(name, path, mutant.tree))
            import pytest

            loaded = "ignore::pytest.PytestAssertRewriteWarning"
            chosen = ["-x", "-q", "-p", "no:cacheprovider", "-W", loaded, "-k", "not postgresql", *tests]
            status = int(pytest.main(chosen))
        finally:
            os._exit(status)
    ends = time.monotonic() + TIMEOUT
    while time.monotonic() < ends:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status != 0
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


def preload() -> None:
    """Load what every test needs and no mutant touches."""
    import aiohttp
    import fastapi
    import hypothesis
    import jsonschema
    import pydantic
    import pytest
    import sqlalchemy.orm
    import structlog

    assert all((aiohttp, fastapi, hypothesis, jsonschema, pydantic, pytest, sqlalchemy, structlog))


def tried(name: str, step: int) -> tuple[int, list[Mutant]]:
    """How many mutants of a module were tried, each ``step``-th and every leak, and which no test noticed."""
    path = ROOT / "src" / f"{name.replace('.', '/')}.py"
    assert not noticed(name, path, None, TARGETS[name]), f"the tests of {name} fail without a mutant"
    made = list(mutants(path.read_text("utf-8")))
    chosen = [one for number, one in enumerate(made) if one.leak or number % step == 0]
    return len(chosen), [one for one in chosen if not noticed(name, path, one, TARGETS[name])]


def main() -> int:
    parser = argparse.ArgumentParser(description="Try mutants of the modules that make telemetry.")
    parser.add_argument("modules", nargs="*", choices=[*TARGETS, []], help="which; by default all")
    parser.add_argument("--every", type=int, default=1, help="try only each so manieth")
    options = parser.parse_args()
    os.chdir(ROOT)
    preload()
    total, missed, leaks = 0, 0, 0
    for name in options.modules or TARGETS:
        count, survivors = tried(name, options.every)
        total, missed = total + count, missed + len(survivors)
        leaks += sum(one.leak for one in survivors)
        print(f"{name}: {count - len(survivors)} of {count}", flush=True)
        for one in survivors:
            print(f"  {'LEAK ' if one.leak else ''}line {one.line}: {one.change}", flush=True)
    score = 1 - missed / total
    print(f"score: {score:.1%} of {total}; leaks that were not noticed: {leaks}")
    return 0 if score >= ENOUGH and not leaks else 1


if __name__ == "__main__":
    sys.exit(main())
