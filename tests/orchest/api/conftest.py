"""A platform for tests of the API: its own database and directories, and a client that calls it."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text
from starlette.testclient import TestClient

from clarion.addresses import EgressPolicy
from clarion.testing import LOOPBACK
from orchest.app import create_app
from orchest.platform import Platform, migrate, open_platform
from orchest.site import Site
from tests.conftest import POSTGRES_URL, drop_database, make_database
from tests.orchest.api.calling import BASE


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite database brought up to date by the migrations, to be copied."""
    root = tmp_path_factory.mktemp("migrated")
    platform = open_platform(Site(BASE, root), f"sqlite:///{root / 'empty.db'}", EgressPolicy())
    migrate(platform)
    platform.close()
    return root / "empty.db"


@pytest.fixture
def database(tmp_path: Path, migrated: Path) -> str:
    """A migrated database: SQLite, unless a module says that its tests are for both (`on_both`)."""
    shutil.copy(migrated, tmp_path / "test.db")
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL database brought up to date by the migrations, to be copied."""
    url, admin = make_database(postgres_server)
    platform = open_platform(Site(BASE, tmp_path_factory.mktemp("postgres")), url, EgressPolicy())
    migrate(platform)
    platform.close()
    yield url
    drop_database(url, admin)


@pytest.fixture(params=["sqlite", "postgresql"])
def on_both(request: pytest.FixtureRequest, tmp_path: Path, migrated: Path) -> Iterator[str]:
    """A migrated database: once SQLite, once PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(migrated, tmp_path / "test.db")
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    template = make_url(request.getfixturevalue("migrated_postgres"))
    admin = create_engine(POSTGRES_URL, isolation_level="AUTOCOMMIT")
    name = f"clarion_test_{uuid4().hex[:12]}"
    with admin.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{template.database}"'))
    url = template.set(database=name).render_as_string(hide_password=False)
    yield url
    drop_database(url, admin)


@pytest.fixture
def platform(tmp_path: Path, database: str) -> Iterator[Platform]:
    """A platform without workers, which may call loopback."""
    platform = open_platform(Site(BASE, tmp_path / "data"), database, EgressPolicy.of(LOOPBACK))
    yield platform
    platform.close()


@pytest.fixture
def client(platform: Platform) -> Iterator[TestClient]:
    app = create_app(platform, workers=False)
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        yield client
