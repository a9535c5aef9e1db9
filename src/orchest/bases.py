"""What environments are built on: the bases we offer, or a Python interpreter of the user's own."""

import re
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from orchest.errors import FieldProblem, InvalidFields

DEFAULT = "python"
VERSION = re.compile(r"python3\.[0-9]{1,2}")


@dataclass(frozen=True, slots=True)
class Base:
    """A base of ours. ``pip`` installs packages into it; ``shared`` sees the platform's own packages."""

    name: str
    description: str
    pip: bool = True
    shared: bool = False


BASES = {
    base.name: base
    for base in (
        Base("python", "The platform's Python with pip, and nothing else."),
        Base(
            "python-shared",
            "The same, and it sees the packages of the platform (notebooks run).",
            shared=True,
        ),
        Base("python-bare", "The platform's Python without pip: made at once.", pip=False),
        Base("python-notebook", "Sees the platform's packages, without pip: made at once.", False, True),
    )
}


class NoSuchBase(Exception):
    """The base cannot be used on this machine; says why in a user's words."""


def check_base(name: str) -> bool:
    """Whether ``name`` is a base of ours: one of `BASES` or ``python3.N``; else it is a path.

    Raises:
        InvalidFields: it is neither.
    """
    if name in BASES or VERSION.fullmatch(name):
        return True
    if Path(name).is_absolute() and name.isprintable():
        return False
    allowed = f"{', '.join(BASES)}, python3.N (a version), or the absolute path of a Python interpreter"
    raise InvalidFields([FieldProblem("/base", f"{name!r} is no base; possible are {allowed}")])


def venv_command(base: str, target: Path) -> list[str]:
    """The command that makes the virtual environment ``target``.

    Raises:
        NoSuchBase: this machine has no such interpreter.
    """
    ours = BASES.get(base)
    command = [str(interpreter_for(base)), "-m", "venv"]
    if ours is not None and not ours.pip:
        command.append("--without-pip")
    if ours is not None and ours.shared:
        command.append("--system-site-packages")
    return [*command, str(target)]


def interpreter_for(base: str) -> Path:
    if base in BASES:
        return Path(sys.executable)
    found = shutil.which(base)
    if found is None:
        raise NoSuchBase(f"there is no interpreter {base} on this machine")
    return Path(found)


def share_packages(base: str, target: Path) -> None:
    """Let a shared base see the platform's packages also where these are in a virtual environment."""
    ours = BASES.get(base)
    if ours is None or not ours.shared:
        return
    place = Path(sysconfig.get_path("purelib", "venv", {"base": str(target), "platbase": str(target)}))
    packages = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (place / "platform.pth").write_text("".join(f"{path}\n" for path in sorted(packages)))
