"""Bases: which there are, and the command that makes a virtual environment of each."""

import subprocess
import sys
from pathlib import Path

import pytest

from orchest import bases


@pytest.mark.parametrize(
    ("base", "flags"),
    [
        ("python", []),
        ("python-shared", ["--system-site-packages"]),
        ("python-bare", ["--without-pip"]),
        ("python-notebook", ["--without-pip", "--system-site-packages"]),
    ],
)
def test_each_base_has_its_command(base: str, flags: list[str]) -> None:
    command = bases.venv_command(base, Path("/target"))
    assert command == [sys.executable, "-m", "venv", *flags, "/target"]


def test_an_interpreter_of_the_users_own_is_used() -> None:
    assert bases.venv_command(sys.executable, Path("/target"))[0] == sys.executable


def test_a_file_that_cannot_be_executed_is_no_base(tmp_path: Path) -> None:
    (tmp_path / "python").write_text("")
    with pytest.raises(bases.NoSuchBase, match="no interpreter"):
        bases.venv_command(str(tmp_path / "python"), Path("/target"))


@pytest.mark.parametrize(("base", "sees"), [("python-notebook", True), ("python-bare", False)])
def test_only_a_shared_base_sees_the_platforms_packages(tmp_path: Path, base: str, sees: bool) -> None:
    target = tmp_path / "venv"
    subprocess.run(bases.venv_command(base, target), check=True)
    bases.share_packages(base, target)
    tried = subprocess.run([target / "bin" / "python", "-c", "import nbformat"], capture_output=True)
    assert (tried.returncode == 0) is sees
