"""Who watches the mutants: they are what they promise, and one that no test notices is found."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house import mutation
from tests.house.mutation import mutants


def changes(source: str) -> list[str]:
    return [mutant.change for mutant in mutants(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def f(x):\n    return x < 1", ["return x < 1 -> return None", "x < 1 -> x <= 1", "1 -> 2"]),
        ("x = a and b", ["a and b -> a or b"]),
        ("x = not a", ["not a -> not not a"]),
        ("x = a * b", ["a * b -> a / b"]),
        ("x = True", ["True -> False"]),
        ("x = 'py'", ["'py' -> 'pyx'"]),
        ("if a:\n    pass", ["if a: -> if not a:"]),
        ('"""What it is."""', []),
        ("raise ValueError('no')", []),
        ("x = fact(doc='It.', purpose='To know.')", []),
        ("x: Literal['a'] = y", []),
        ("@dataclass(frozen=True, slots=True)\nclass A: ...", []),
        ("def f(x: 'T') -> 'U': ...", []),
    ],
)
def test_each_has_one_change(source: str, expected: list[str]) -> None:
    assert changes(source) == expected
    for mutant in mutants(source):
        assert ast.unparse(mutant.tree) != ast.unparse(ast.parse(source))


def test_a_leak_returns_what_was_given() -> None:
    source = "def convert(tp, value):\n    def inner(other):\n        return other.x\n    return str(value)"
    assert [(m.line, m.change) for m in mutants(source) if m.leak] == [
        (4, "return str(value) -> return value")
    ]


def test_every_target_has_its_tests() -> None:
    for name, tests in mutation.TARGETS.items():
        path = mutation.ROOT / "src" / f"{name.replace('.', '/')}.py"
        assert len(list(mutants(path.read_text("utf-8")))) > 10
        assert all((mutation.ROOT / test).exists() for test in tests)


MODULE = "def double(value):\n    return value * 2\n\n\nUNTESTED = 7\n"
TEST = "from doubling import double\n\n\ndef test_it():\n    assert double(3) == 6\n"
TRYING = """
import json, sys
from pathlib import Path
from tests.house.mutation import mutants, noticed

here = Path(sys.argv[1])
sys.path.insert(0, str(here))
module, tests = here / "doubling.py", (str(here / "test_doubling.py"), f"--rootdir={here}")
told = {m.change: noticed("doubling", module, m, tests) for m in mutants(module.read_text())}
print(json.dumps({"none": noticed("doubling", module, None, tests), **told}))
"""


def test_one_that_a_test_notices_is_told_from_one_that_none_does(tmp_path: Path) -> None:
    """In a program of its own: it forks."""
    (tmp_path / "doubling.py").write_text(MODULE)
    (tmp_path / "test_doubling.py").write_text(TEST)
    done = subprocess.run(
        [sys.executable, "-c", TRYING, str(tmp_path)],
        cwd=mutation.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "none": False,
        "return value * 2 -> return None": True,
        "return value * 2 -> return value": True,
        "value * 2 -> value / 2": True,
        "2 -> 3": True,
        "7 -> 8": False,
    }
