"""Ordinary mistakes as a sentence with what to do, instead of a traceback."""

import re
from importlib.metadata import requires


def of_the_database(error: Exception) -> str | None:
    """A database's error as a sentence; None if it is another kind of error."""
    from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError

    if not isinstance(error, DBAPIError):
        return None
    said = str(error.orig).strip().splitlines()[0] if error.orig else type(error).__name__
    missing = isinstance(error, OperationalError | ProgrammingError) and (
        "no such table" in said or "no such column" in said or "does not exist" in said
    )
    if missing and not said.startswith("connection"):
        return f"the database is not up to date ({said}); run: clarion migrate"
    if isinstance(error, OperationalError):
        return f"the database does not answer ({said}); see CLARION_DATABASE_URL and: clarion doctor"
    return f"the database refuses: {said}"


def of_an_extra(error: Exception) -> str | None:
    """Which extra to install for a module that is not there, the smallest that has it; None if none has."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    module = error.name.partition(".")[0]
    extras: dict[str, set[str]] = {}
    for requirement in requires("clarion") or ():
        if found := re.match(r"(?P<package>[\w.-]+).*\bextra == ['\"](?P<extra>[\w-]+)", requirement):
            extras.setdefault(found["extra"], set()).add(found["package"].lower().replace("-", "_"))
    having = [name for name, packages in extras.items() if module in packages]
    if not having:
        return None
    extra = min(having, key=lambda name: len(extras[name]))
    return f"{module} is not installed: pip install 'clarion[{extra}]'"
