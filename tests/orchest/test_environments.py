"""Environments: rows, their events, which interpreter steps get, and deletion."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, func, select

from clarion.errors import Conflict, NotFound
from orchest import bases, builds, environments
from orchest.builders import Builders
from orchest.errors import InvalidFields
from orchest.events import EnvironmentEvent, EnvironmentImageBuildEvent
from orchest.models import Environment, EnvironmentImageBuild, Language, PipelineRun, Status
from tests.orchest.installation import BARE, Installation


@pytest.fixture
def here(database_url: str, orchest_engine: Engine, tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(database_url, tmp_path / "installation")
    yield installation
    installation.platform.close()


def create(here: Installation, project_uuid: str, **values: Any) -> Environment:
    made: Environment = here.change(
        lambda session: environments.create_environment(
            session, here.site, project_uuid, **{"name": "env", "base": BARE, **values}
        )
    )
    return made


def delete(here: Installation, environment: Environment) -> None:
    def act(session: Any) -> None:
        found = environments.find_environment(session, environment.project_uuid, environment.uuid, lock=True)
        environments.delete_environment(session, here.site, found)

    here.change(act)
    environments.remove_directory(here.site, environment.uuid)


def test_an_environment_is_created_and_tells_so(here: Installation) -> None:
    project = here.project()
    made = create(here, project.uuid, language=Language.R, gpu_support=True, setup_script="true")
    assert here.told(EnvironmentEvent) == ["project:environment:created"]
    [payload] = here.payloads(EnvironmentEvent)
    assert payload["project"]["environment"] == {
        "uuid": made.uuid,
        "name": "env",
        "url": f"http://localhost:8470/projects/{project.uuid}/environments/{made.uuid}",
    }


def test_the_base_says_whether_it_is_ours(here: Installation) -> None:
    project = here.project()
    assert create(here, project.uuid, base="python").base_is_ours
    assert create(here, project.uuid, base="python3.11").base_is_ours
    assert not create(here, project.uuid, base="/usr/bin/python3").base_is_ours


@pytest.mark.parametrize("base", ["pyhton", "python2.7", "bin/python", "python3.11; rm", "/bin/py\x00thon"])
def test_a_base_that_is_none_is_refused(here: Installation, base: str) -> None:
    with pytest.raises(InvalidFields, match="is no base; possible are python, python-shared"):
        create(here, here.project().uuid, base=base)
    assert here.told(EnvironmentEvent) == []


def test_a_change_of_the_base_is_checked(here: Installation) -> None:
    made = create(here, here.project().uuid)
    with pytest.raises(InvalidFields, match="no base"):
        here.change(
            lambda s: environments.update_environment(s, made.project_uuid, made.uuid, {"base": "nothing"})
        )
    changed = here.change(
        lambda s: environments.update_environment(
            s, made.project_uuid, made.uuid, {"base": "/opt/python", "name": "other"}
        )
    )
    assert (changed.name, changed.base_is_ours) == ("other", False)


def test_an_environment_of_another_project_is_not_found(here: Installation) -> None:
    made = create(here, here.project("one").uuid)
    other = here.project("two")
    with (
        here.platform.readers() as session,
        pytest.raises(NotFound, match=f"no environment {made.uuid} in project {other.uuid}"),
    ):
        environments.find_environment(session, other.uuid, made.uuid)


def test_a_uuid_that_is_taken_is_refused(here: Installation) -> None:
    made = create(here, here.project().uuid)
    with pytest.raises(Conflict, match="already"):
        create(here, made.project_uuid, uuid=made.uuid)


def test_steps_get_the_interpreter_that_was_built(here: Installation) -> None:
    made = create(here, here.project().uuid)
    with here.platform.readers() as session, pytest.raises(Conflict, match="'env' has not been built"):
        environments.interpreter_of(session, made)
    with here.working(Builders(here.platform)):
        build = here.change(lambda s: builds.request_build(s, here.site, s.get_one(Environment, made.uuid)))
        here.eventually(select(EnvironmentImageBuild.status).filter_by(uuid=build.uuid), Status.SUCCESS)
    with here.platform.readers() as session:
        found = environments.interpreter_of(session, made)
    prefix = subprocess.check_output([found, "-c", "import sys; print(sys.prefix)"], text=True)
    assert Path(prefix.strip()) == here.site.environments / made.uuid / "1" / "venv"


def test_deleting_cancels_the_build_first_and_removes_all(here: Installation) -> None:
    made = create(here, here.project().uuid, setup_script="echo running; sleep 60")
    with here.working(Builders(here.platform)):
        build = here.change(lambda s: builds.request_build(s, here.site, s.get_one(Environment, made.uuid)))
        here.eventually(select(EnvironmentImageBuild.status).filter_by(uuid=build.uuid), Status.STARTED)
        delete(here, made)
    assert here.told(EnvironmentEvent, EnvironmentImageBuildEvent)[-2:] == [
        "project:environment:image-build:cancelled",
        "project:environment:deleted",
    ]
    assert here.read(select(func.count()).select_from(EnvironmentImageBuild)) == 0
    assert not (here.site.environments / made.uuid).exists()


def test_events_outlive_the_environment(here: Installation) -> None:
    made = create(here, here.project().uuid)
    delete(here, made)
    assert here.told(EnvironmentEvent) == ["project:environment:created", "project:environment:deleted"]


def test_an_environment_in_use_is_not_deleted(here: Installation) -> None:
    made = create(here, here.project().uuid)
    now = here.site.clock()
    run = PipelineRun(
        project_uuid=made.project_uuid,
        pipeline_uuid="p",
        pipeline_name="p",
        number=4,
        definition={"steps": {"a": {"environment": made.uuid}}},
        status=Status.STARTED,
        requested=now,
        started=now,
    )
    here.change(lambda session: session.add(run))
    with pytest.raises(Conflict, match="pipeline run 4 is running in this environment"):
        delete(here, made)
    assert "project:environment:deleted" not in here.told()


def test_a_version_this_machine_does_not_have_names_it() -> None:
    with pytest.raises(bases.NoSuchBase, match=r"no interpreter python3\.99 on this machine"):
        bases.venv_command("python3.99", Path("/nowhere"))
