"""The command line: ``clarion``. A roof: it reads settings, passes values down and prints.

Each group of commands is a module. What a command needs is imported when it runs, so that ``--help`` is
quick. Exit statuses: 0 done, 1 it failed, 2 it was asked for wrongly (an argument, a setting).
"""

import sys


def main() -> None:
    """The console script."""
    try:
        from clarion.cli.commands import app
    except ModuleNotFoundError as error:
        if error.name not in ("typer", "rich"):
            raise
        sys.exit("clarion: the command line needs an extra: pip install 'clarion[cli]'")
    app(prog_name="clarion")
