"""A platform for tests of the API: its own database and directories, and a client that calls it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from clarion.addresses import EgressPolicy
from clarion.testing import LOOPBACK
from orchest.app import create_app
from orchest.platform import Platform, migrate, open_platform
from orchest.site import Site
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
def platform(tmp_path: Path, migrated: Path) -> Iterator[Platform]:
    """A platform without workers, which may call loopback."""
    shutil.copy(migrated, tmp_path / "test.db")
    site = Site(BASE, tmp_path / "data")
    platform = open_platform(site, f"sqlite:///{tmp_path / 'test.db'}", EgressPolicy.of(LOOPBACK))
    yield platform
    platform.close()


@pytest.fixture
def client(platform: Platform) -> Iterator[TestClient]:
    app = create_app(platform, workers=False)
    with TestClient(app, base_url=BASE, follow_redirects=False) as client:
        yield client
