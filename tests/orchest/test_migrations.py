"""The platform's migrations make what its models map, and nothing is declared that they do not make."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine, text

from clarion.database import open_engine
from clarion.migrations.history import compare, downgrade, undeclared, upgrade
from orchest.events import CATALOGUE
from orchest.migrations import HISTORY
from tests.clarion.test_migrations import shape

CREATE_ALL = """
import sys
import orchest.events
from clarion.database import metadata, open_engine
from clarion import deliverees, outbox
from orchest.models import Base
engine = open_engine(sys.argv[1])
metadata.create_all(engine)
Base.metadata.create_all(engine)
"""

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        url = request.getfixturevalue("empty_postgres_url")
    engine = open_engine(url)
    yield engine
    engine.dispose()


def test_the_revisions_make_what_the_models_map(empty: Engine, tmp_path: Path) -> None:
    upgrade(HISTORY, empty)
    migrated = shape(empty)
    with empty.connect() as connection:
        assert compare(HISTORY, connection) == []
        names = set(connection.scalars(text("SELECT name FROM event_types")))
    assert names == {t.name for t in CATALOGUE}
    assert len(names) == 66
    downgrade(HISTORY, empty, "base")
    assert sa.inspect(empty).get_table_names() == ["clarion_version"]
    if empty.dialect.name == "sqlite":
        url = f"sqlite:///{tmp_path / 'created.db'}"
    else:
        url = empty.url.render_as_string(hide_password=False)
    subprocess.run([sys.executable, "-c", CREATE_ALL, url], check=True, timeout=60)
    created = open_engine(url)
    try:
        assert shape(created) == migrated
    finally:
        created.dispose()


def test_everything_declared_is_in_a_revision() -> None:
    """What `clarion migrations check` says; the script below writes the missing one."""
    assert undeclared(HISTORY) == []


def test_the_manuals_migration_manager_writes_revisions(tmp_path: Path) -> None:
    manager = REPOSITORY / "scripts" / "migration_manager.sh"
    environ = {
        **os.environ,
        "CLARION_DATABASE_URL": f"sqlite:///{tmp_path / 'data' / 'managed.db'}",
        "CLARION_MIGRATIONS": str(tmp_path / "history"),  # the repository's own is complete
    }

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [manager, *arguments], capture_output=True, text=True, timeout=60, check=False, env=environ
        )

    assert call("orchest-api", "check").returncode == 1
    made = call("orchest-api", "migrate", "all", "types")
    assert made.returncode == 0, made.stderr
    written = Path(made.stdout.strip())
    assert written.name.endswith("_all_types.py")
    assert "project:cron-job:run:pipeline-run:failed" in written.read_text()
    assert call("orchest-api", "upgrade").returncode == 0
    assert call("orchest-api", "check").returncode == 0
    assert call("orchest-api").returncode == 2
    wrong = call("orchest-ui", "migrate")
    assert wrong.returncode == 2
    assert "no service 'orchest-ui'" in wrong.stderr
