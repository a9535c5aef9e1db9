"""One door to the network: what import-linter cannot see, because it is of Python's own library."""

import ast
from pathlib import Path

from tests.house.call_sites import python_files

SRC = Path(__file__).resolve().parents[2] / "src"
CLIENTS = frozenset({"urllib.request", "http.client", "ftplib", "smtplib", "xmlrpc.client", "telnetlib"})
ASK_OURSELVES = {
    "orchest/client.py": "the demo and the tour ask the platform they have started",
    "orchest/server.py": "a start waits until the platform it has started answers",
}


def imported(source: str) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def test_nothing_of_python_s_own_calls_anybody_but_us() -> None:
    files = [*python_files(SRC / "clarion"), *python_files(SRC / "orchest"), *python_files(SRC / "_orchest")]
    found = {name for name, source in files if imported(source) & CLIENTS}
    assert found == set(ASK_OURSELVES)


def test_imports_are_found_however_they_are_written() -> None:
    for source in ("import http.client", "from http import client", "from http.client import HTTPConnection"):
        assert imported(source) & CLIENTS
    assert not imported("from http import HTTPStatus\nimport urllib.parse") & CLIENTS
