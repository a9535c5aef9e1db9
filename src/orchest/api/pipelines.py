"""Pipelines over HTTP: their definitions, as rows and as files."""

from pathlib import Path
from typing import Any, Self

from fastapi import APIRouter, Request, Response
from pydantic import Field
from sqlalchemy import select

from clarion.analytics import send_event
from clarion.errors import Conflict
from orchest import deletion, pipelines
from orchest.analytics import Event
from orchest.api.http import (
    Body,
    EnvVariables,
    Name,
    Nudge,
    Once,
    Page,
    PageQuery,
    Readers,
    Shown,
    TheSite,
    Time,
    Uuid,
    Writers,
    problems,
)
from orchest.models import Pipeline
from orchest.projects import find_project
from orchest.site import Site

router = APIRouter(prefix="/api/projects/{project_uuid}/pipelines", tags=["pipelines"])

FilePath = Field(
    min_length=1,
    max_length=1024,
    description="Of its file, which ends in `.orchest`, relative to the project's directory.",
)
Document = dict[str, Any]


class NewPipeline(Body):
    """A pipeline to create: empty, by ``name``, or of a ``definition``."""

    name: Name | None = Field(default=None, description="Needed unless there is a definition.")
    definition: Document | None = Field(default=None, description="A definition; unknown keys are kept.")
    path: str | None = Field(
        default=None,
        min_length=1,
        max_length=1024,
        description="Of its file, ending in `.orchest`, relative to the project. By default from the name.",
    )
    env_variables: EnvVariables = {}


class ImportedPipeline(Body):
    """An existing definition file to take over as it is."""

    path: str = FilePath
    env_variables: EnvVariables = {}


class PipelineChanges(Body):
    """What to change; what is left out, or null, stays as it is."""

    name: Name | None = None
    path: str | None = Field(default=None, min_length=1, max_length=1024, description="Moves its file.")
    env_variables: EnvVariables | None = Field(default=None, description="All of them, not only the new.")


class SavedDefinition(Body):
    """A definition to save."""

    definition: Document = Field(description="All of it; unknown keys are kept.")


class PipelineShown(Shown):
    """A pipeline, without its definition."""

    uuid: str
    project_uuid: str
    name: str
    path: str
    env_variables: dict[str, str]
    created: Time
    saved: Time = Field(description="When its definition was last saved.")
    url: str = Field(description="Its page.")

    @classmethod
    def of(cls, pipeline: Pipeline, site: Site) -> Self:
        return cls(
            uuid=pipeline.uuid,
            project_uuid=pipeline.project_uuid,
            name=pipeline.name,
            path=pipeline.path,
            env_variables=pipeline.env_variables,
            created=pipeline.created,
            saved=pipeline.saved,
            url=site.links.to("pipeline", project=pipeline.project_uuid, pipeline=pipeline.uuid),
        )


@router.post("", status_code=201, response_model=PipelineShown, responses=problems(404, 409))
def create_pipeline(
    project_uuid: Uuid, body: NewPipeline, once: Once, readers: Readers, site: TheSite
) -> Response:
    """Create an empty pipeline, or one of a definition, and its file."""
    with readers() as session:
        directory = find_project(session, project_uuid).path
    definition = pipelines.requested_definition(body.name, body.definition)
    path = body.path or pipelines.usual_path(definition.name)
    file = pipelines.file_of(directory, path)

    def create(session: Any) -> PipelineShown:
        pipeline = pipelines.create_pipeline(
            session,
            site,
            project_uuid,
            definition=definition,
            path=path,
            env_variables=body.env_variables,
        )
        if file.exists():
            raise Conflict(f"there is a file {path} in the project; import it, or choose another path")
        return PipelineShown.of(pipeline, site)

    with pipelines.staged(file, definition.document) as place:
        answer = once(body, create)
        if not once.replayed:
            place()
        return answer


@router.post("/import", status_code=201, response_model=PipelineShown, responses=problems(404, 409))
def import_pipeline(
    project_uuid: Uuid, body: ImportedPipeline, once: Once, readers: Readers, site: TheSite
) -> Response:
    """Take over a definition file that lies in the project's directory. The file stays as it is."""
    with readers() as session:
        directory = find_project(session, project_uuid).path
    definition = pipelines.import_definition(directory, body.path)
    return once(
        body,
        lambda session: PipelineShown.of(
            pipelines.create_pipeline(
                session,
                site,
                project_uuid,
                definition=definition,
                path=body.path,
                env_variables=body.env_variables,
            ),
            site,
        ),
    )


@router.get("", responses=problems(404))
def list_pipelines(
    project_uuid: Uuid, page: PageQuery, readers: Readers, site: TheSite
) -> Page[PipelineShown]:
    """The pipelines of a project, the newest first."""
    with readers() as session:
        find_project(session, project_uuid)
        return page.page(
            session,
            select(Pipeline).where(Pipeline.project_uuid == project_uuid),
            (Pipeline.created, Pipeline.uuid),
            lambda pipeline: PipelineShown.of(pipeline, site),
        )


@router.get("/{pipeline_uuid}", responses=problems(404))
def show_pipeline(project_uuid: Uuid, pipeline_uuid: Uuid, readers: Readers, site: TheSite) -> PipelineShown:
    """One pipeline."""
    with readers() as session:
        return PipelineShown.of(pipelines.find_pipeline(session, project_uuid, pipeline_uuid), site)


@router.get("/{pipeline_uuid}/definition", responses=problems(404))
def show_definition(project_uuid: Uuid, pipeline_uuid: Uuid, readers: Readers) -> Document:
    """The definition as it was last saved, unknown keys included."""
    with readers() as session:
        return pipelines.find_pipeline(session, project_uuid, pipeline_uuid).definition


@router.put("/{pipeline_uuid}/definition", responses=problems(404, 409))
def save_definition(
    project_uuid: Uuid,
    pipeline_uuid: Uuid,
    body: SavedDefinition,
    sessions: Writers,
    readers: Readers,
    site: TheSite,
    request: Request,
) -> PipelineShown:
    """Save a definition, in the database and in the pipeline's file."""
    definition = pipelines.read_definition(body.definition)
    file, path = located(readers, project_uuid, pipeline_uuid)
    with pipelines.staged(file, definition.document) as place:
        with sessions.begin() as session:
            pipeline = pipelines.save_pipeline(session, site, project_uuid, pipeline_uuid, definition)
            if pipeline.path != path:
                raise Conflict("the pipeline was moved at the same moment; save it again")
            shown = PipelineShown.of(pipeline, site)
        place()
    send_event(request.app, Event.PROJECT_PIPELINE_SAVED)
    return shown


@router.patch("/{pipeline_uuid}", responses=problems(404, 409))
def update_pipeline(
    project_uuid: Uuid,
    pipeline_uuid: Uuid,
    body: PipelineChanges,
    sessions: Writers,
    readers: Readers,
    site: TheSite,
) -> PipelineShown:
    """Change a pipeline's name, its environment variables, or where its file lies."""
    before, _ = located(readers, project_uuid, pipeline_uuid)
    with readers() as session:
        pipeline = pipelines.find_pipeline(session, project_uuid, pipeline_uuid)
        directory, document = pipeline.project.path, pipeline.definition
    file = before if body.path is None else pipelines.file_of(directory, body.path)
    if file != before and file.exists():
        raise Conflict(f"there is a file {body.path} in the project already")
    changed = document if body.name is None else {**document, "name": body.name}
    with pipelines.staged(file, changed) as place:
        with sessions.begin() as session:
            pipeline = pipelines.update_pipeline(
                session,
                site,
                project_uuid,
                pipeline_uuid,
                name=body.name,
                path=body.path,
                env_variables=body.env_variables,
            )
            if pipeline.definition != changed:
                raise Conflict("the pipeline was saved at the same moment; try again")
            shown = PipelineShown.of(pipeline, site)
        if file != before or changed != document:
            place()
    if file != before:
        pipelines.remove_file(before)
    return shown


@router.delete("/{pipeline_uuid}", status_code=204, responses=problems(404, 409))
def delete_pipeline(
    project_uuid: Uuid, pipeline_uuid: Uuid, sessions: Writers, readers: Readers, site: TheSite, nudge: Nudge
) -> None:
    """Delete a pipeline and its file, and end its interactive session. Its jobs stay: they hold a copy."""
    file, _ = located(readers, project_uuid, pipeline_uuid)
    with sessions.begin() as session:
        remains = deletion.delete_pipeline(session, site, project_uuid, pipeline_uuid)
    nudge()
    remains.remove(site)
    pipelines.remove_file(file)


def located(readers: Readers, project_uuid: str, pipeline_uuid: str) -> tuple[Path, str]:
    """Where a pipeline's file is, and its path in the project. Raises NotFound."""
    with readers() as session:
        pipeline = pipelines.find_pipeline(session, project_uuid, pipeline_uuid)
        return pipelines.file_of(pipeline.project.path, pipeline.path), pipeline.path
