"""Projects as rows and events, on both databases."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.errors import Conflict, NotFound
from clarion.events import Event
from orchest.errors import InvalidFields
from orchest.projects import (
    create_project,
    find_project,
    given_directory,
    own_directory,
    update_project,
)
from orchest.site import Site
from tests.orchest.world import NOW


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site("https://orchest.example", tmp_path / "data", lambda: NOW)


def types(session: Session) -> list[str]:
    return list(session.scalars(select(Event.type).order_by(Event.sequence)))


def test_a_project_and_its_event_in_one_transaction(session: Session, site: Site) -> None:
    project = create_project(session, site, name="one", path=Path("/a"), env_variables={"A": "b"})
    assert (project.name, project.path, project.created) == ("one", "/a", NOW)
    assert types(session) == ["project:created"]
    session.rollback()
    assert types(session) == []
    with pytest.raises(NotFound, match=project.uuid):
        find_project(session, project.uuid)


@pytest.mark.parametrize(
    ("path", "shared"),
    [("/a/b", True), ("/a", True), ("/a/b/c", True), ("/", True), ("/a/bc", False), ("/b", False)],
)
def test_no_two_projects_share_files(session: Session, site: Site, path: str, shared: bool) -> None:
    create_project(session, site, name="one", path=Path("/a/b"))
    if shared:
        with pytest.raises(Conflict, match="/a/b"):
            create_project(session, site, name="two", path=Path(path))
    else:
        create_project(session, site, name="two", path=Path(path))
    assert len(types(session)) == 2 - shared


def test_an_update_tells_what_changed_and_nothing_else(session: Session, site: Site) -> None:
    uuid = create_project(session, site, name="one", path=Path("/a"), env_variables={"A": "b"}).uuid
    update_project(session, site, uuid, name="one", env_variables={"A": "b"})
    assert types(session) == ["project:created"]
    update_project(session, site, uuid, name="two")
    (payload,) = session.scalars(select(Event.notification).where(Event.type == "project:updated"))
    assert payload["project"]["update"]["changes"] == [
        {"type": "UPDATED", "changed_object": "NAME", "old_value": "one", "new_value": "two"}
    ]
    with pytest.raises(NotFound):
        update_project(session, site, "nobody", name="x")


@pytest.mark.parametrize(
    ("name", "slug"),
    [("Wine Quality", "wine-quality"), ("../..", "project"), ("日本", "project"), ("a" * 100, "a" * 40)],
)
def test_own_directories_are_readable_and_inside(site: Site, name: str, slug: str) -> None:
    path = own_directory(site, name, "12345678-aaaa")
    assert path == site.projects.resolve() / f"{slug}-12345678"


def test_given_directories(site: Site, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("")
    (tmp_path / "good").mkdir()
    site.data.mkdir()
    assert given_directory(site, str(tmp_path / "good" / ".." / "good")) == tmp_path / "good"
    for bad in ("good", str(tmp_path / "file"), str(tmp_path / "loop"), str(tmp_path), str(site.data)):
        with pytest.raises(InvalidFields):
            given_directory(site, bad)
