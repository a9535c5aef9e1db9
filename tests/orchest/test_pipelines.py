"""Pipelines as rows, events and files, on both databases."""

import json
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.errors import Conflict, NotFound
from clarion.events import Event
from orchest.definition import parse
from orchest.errors import InvalidFields
from orchest.models import Pipeline, Project
from orchest.pipelines import (
    create_pipeline,
    file_of,
    new_definition,
    save_pipeline,
    staged,
    update_pipeline,
    usual_path,
)
from orchest.projects import create_project
from orchest.site import Site
from tests.orchest.building import document
from tests.orchest.world import NOW


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site("https://orchest.example", tmp_path / "data", lambda: NOW)


@pytest.fixture
def project(session: Session, site: Site) -> Project:
    return create_project(session, site, name="one", path=Path("/a"))


@pytest.fixture
def pipeline(session: Session, site: Site, project: Project) -> Pipeline:
    definition = parse(document({"load": {}}, unknown={"kept": [1]}))
    return create_pipeline(session, site, project.uuid, definition=definition, path="p.orchest")


def types(session: Session) -> list[str]:
    return list(session.scalars(select(Event.type).order_by(Event.sequence)))


def test_created_with_unknown_keys(session: Session, pipeline: Pipeline) -> None:
    session.expire_all()
    assert pipeline.definition["unknown"] == {"kept": [1]}
    assert types(session) == ["project:created", "project:pipeline:created"]
    (payload,) = session.scalars(select(Event.notification).where(Event.type == "project:pipeline:created"))
    assert payload["project"]["pipeline"]["uuid"] == pipeline.uuid  # original: the event's uuid
    assert "kept" not in json.dumps(payload)


def test_one_uuid_and_one_path_a_project(
    session: Session, site: Site, project: Project, pipeline: Pipeline
) -> None:
    same = parse(pipeline.definition)
    with pytest.raises(Conflict, match=pipeline.uuid):
        create_pipeline(session, site, project.uuid, definition=same, path="q.orchest")
    with pytest.raises(Conflict, match=r"p\.orchest"):
        create_pipeline(session, site, project.uuid, definition=new_definition("q"), path="p.orchest")
    with pytest.raises(NotFound):
        create_pipeline(session, site, "nobody", definition=same, path="p.orchest")
    other = create_project(session, site, name="two", path=Path("/b"))
    create_pipeline(session, site, other.uuid, definition=same, path="p.orchest")


def test_saving_tells_that_the_definition_changed_and_not_how(
    session: Session, site: Site, project: Project, pipeline: Pipeline
) -> None:
    changed = parse({**pipeline.definition, "parameters": {"private": "private"}})
    save_pipeline(session, site, project.uuid, pipeline.uuid, changed)
    save_pipeline(session, site, project.uuid, pipeline.uuid, changed)
    (payload,) = session.scalars(select(Event.notification).where(Event.type == "project:pipeline:updated"))
    assert payload["project"]["pipeline"]["update"]["changes"] == [
        {"type": "UPDATED", "changed_object": "DEFINITION"}
    ]
    with pytest.raises(InvalidFields, match="is of pipeline"):
        save_pipeline(session, site, project.uuid, pipeline.uuid, new_definition("other"))
    with pytest.raises(NotFound):
        save_pipeline(session, site, project.uuid, project.uuid, changed)


def test_a_new_name_is_in_the_definition_too(
    session: Session, site: Site, project: Project, pipeline: Pipeline
) -> None:
    update_pipeline(session, site, project.uuid, pipeline.uuid, name="new")
    assert pipeline.definition["name"] == "new"
    assert pipeline.definition["unknown"] == {"kept": [1]}


@pytest.mark.parametrize(
    "path",
    [
        "/p.orchest",
        "../p.orchest",
        "a/../p.orchest",
        "p.txt",
        "p",
        "a\\p.orchest",
        "p\n.orchest",
        "x/./p.orchest",
    ],
)
def test_files_lie_inside_the_project(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidFields):
        file_of(str(tmp_path), path)


def test_links_that_lead_out(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "out").symlink_to(tmp_path)
    (tmp_path / "project" / "in").symlink_to(tmp_path / "project")
    with pytest.raises(InvalidFields, match="leads out"):
        file_of(str(tmp_path / "project"), "out/p.orchest")
    assert file_of(str(tmp_path / "project"), "in/p.orchest") == tmp_path / "project" / "p.orchest"


def test_a_staged_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "p.orchest"
    with pytest.raises(RuntimeError), staged(file, {"a": 1}):
        raise RuntimeError("the transaction failed")
    assert list(tmp_path.iterdir()) == []
    with staged(file, {"a": "ä"}) as place:
        assert not file.exists()
        place()
    assert file.read_text(encoding="utf-8") == '{\n  "a": "ä"\n}\n'
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "path"), [("My Pipe!", "my-pipe.orchest"), ("日本", "pipeline.orchest"), ("../x", "x.orchest")]
)
def test_usual_path(name: str, path: str) -> None:
    assert usual_path(name) == path
