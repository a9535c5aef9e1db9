"""A process that builds and hosts until it is killed: ``... workers_program.py URL ROOT``."""

import sys
from pathlib import Path

from orchest.builders import Builders
from orchest.hosting import Hosts
from tests.orchest.installation import Installation


def main(url: str, root: str) -> None:
    here = Installation(url, Path(root))
    with here.working(Builders(here.platform), Hosts(here.platform)):
        sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
