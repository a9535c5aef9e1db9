"""Pipelines: definitions, each kept as a row and as the file of its project that editors know."""

import errno
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.errors import Conflict, NotFound
from clarion.observe import log
from clarion.outbox import record
from orchest.definition import MAX_DOCUMENT_BYTES, Definition, parse
from orchest.documents import json_size
from orchest.errors import FieldProblem, InvalidFields
from orchest.events import Change, ChangedObject, PipelineEvent, about_pipeline, change, variable_changes
from orchest.models import Pipeline, Project, new_uuid
from orchest.projects import find_project
from orchest.site import Site

STAGED = ".staged"
"""How the name of a pipeline file ends that is not in its place yet; snapshots leave it out."""

SUFFIX = ".orchest"
MAX_SLUG = 60
MAX_FILE_NAME = 255
"""Bytes (NAME_MAX of Linux)."""
VERSION = "1.2.2"
"""The version of the definition's format that new pipelines have, the original's newest."""


def find_pipeline(session: Session, project_uuid: str, pipeline_uuid: str, *, lock: bool = False) -> Pipeline:
    """The pipeline. ``lock`` holds its row until the transaction ends. Raises NotFound."""
    pipeline = session.get(Pipeline, (project_uuid, pipeline_uuid), with_for_update=lock or None)
    if pipeline is None:
        find_project(session, project_uuid)
        raise NotFound(f"there is no pipeline {pipeline_uuid} in project {project_uuid}")
    return pipeline


def create_pipeline(
    session: Session,
    site: Site,
    project_uuid: str,
    *,
    definition: Definition,
    path: str,
    env_variables: dict[str, Any] | None = None,
) -> Pipeline:
    """A pipeline of this definition, whose file is ``path`` in the project's directory.

    Raises:
        NotFound: there is no such project.
        Conflict: the project has a pipeline of this uuid, or at this path.
    """
    project = find_project(session, project_uuid, lock=True)
    if session.get(Pipeline, (project_uuid, definition.uuid)) is not None:
        raise Conflict(f"project {project_uuid} has a pipeline {definition.uuid} already")
    check_free(session, project, path)
    now = site.clock()
    pipeline = Pipeline(
        uuid=definition.uuid,
        project=project,
        name=definition.name,
        path=path,
        definition=dict(definition.document),
        env_variables=env_variables or {},
        created=now,
        saved=now,
    )
    session.add(pipeline)
    session.flush()
    record(session, PipelineEvent("created", **about_pipeline(pipeline, site.links)))
    return pipeline


def save_pipeline(
    session: Session, site: Site, project_uuid: str, pipeline_uuid: str, definition: Definition
) -> Pipeline:
    """Save a new definition. The same as before is no change, and then nothing is recorded.

    Raises:
        NotFound: there is no such pipeline.
        InvalidFields: the definition is another pipeline's.
    """
    pipeline = find_pipeline(session, project_uuid, pipeline_uuid, lock=True)
    if definition.uuid != pipeline_uuid:
        what = f"the definition is of pipeline {definition.uuid}, not of {pipeline_uuid}"
        raise InvalidFields([FieldProblem("/definition/uuid", what)])
    document = dict(definition.document)
    changes = change(ChangedObject.NAME, pipeline.name, definition.name)
    if pipeline.definition != document:
        changes += change(ChangedObject.DEFINITION)
    pipeline.name, pipeline.definition, pipeline.saved = definition.name, document, site.clock()
    record_update(session, site, pipeline, changes)
    return pipeline


def update_pipeline(
    session: Session,
    site: Site,
    project_uuid: str,
    pipeline_uuid: str,
    *,
    name: str | None = None,
    path: str | None = None,
    env_variables: dict[str, Any] | None = None,
) -> Pipeline:
    """Change what is given; what is as it was is no change, and without any nothing is recorded.

    Raises:
        NotFound: there is no such pipeline.
        Conflict: another pipeline of the project has this path.
    """
    pipeline = find_pipeline(session, project_uuid, pipeline_uuid, lock=True)
    changes: list[Change] = []
    if name is not None:
        changes += change(ChangedObject.NAME, pipeline.name, name)
        pipeline.name = name
        pipeline.definition = {**pipeline.definition, "name": name}
    if path is not None and path != pipeline.path:
        check_free(session, pipeline.project, path)
        changes += change(ChangedObject.PATH, pipeline.path, path)
        pipeline.path = path
    if env_variables is not None:
        changes += variable_changes(pipeline.env_variables, env_variables)
        pipeline.env_variables = env_variables
    record_update(session, site, pipeline, changes)
    return pipeline


def record_update(session: Session, site: Site, pipeline: Pipeline, changes: list[Change]) -> None:
    session.flush()
    if changes:
        record(session, PipelineEvent("updated", **about_pipeline(pipeline, site.links, changes)))


def check_free(session: Session, project: Project, path: str) -> None:
    taken = select(Pipeline.uuid).where(Pipeline.project_uuid == project.uuid, Pipeline.path == path)
    if (other := session.scalar(taken)) is not None:
        raise Conflict(f"{path} is the file of pipeline {other} of this project")


def read_definition(document: dict[str, Any]) -> Definition:
    """A definition as a request brings it. Raises InvalidDefinition, InvalidFields."""
    definition = parse(document)
    if json_size(document) > MAX_DOCUMENT_BYTES:
        raise InvalidFields([FieldProblem("/definition", f"is larger than {MAX_DOCUMENT_BYTES} bytes")])
    return definition


def new_definition(name: str) -> Definition:
    """An empty pipeline."""
    return parse(
        {
            "uuid": new_uuid(),
            "name": name,
            "version": VERSION,
            "parameters": {},
            "settings": {"auto_eviction": False, "data_passing_memory_size": "1GB"},
            "steps": {},
            "services": {},
        }
    )


def file_of(project_path: str, path: str) -> Path:
    """The pipeline file at ``path`` in a project's directory, links followed.

    Raises:
        InvalidFields: it is not a relative path of a ``.orchest`` file, or leads out of the directory.
    """
    relative = PurePosixPath(path)
    if relative.is_absolute() or ".." in relative.parts or "\\" in path or not path.isprintable():
        raise InvalidFields(
            [FieldProblem("/path", f"{path!r} must be relative to the project, without '..'")]
        )
    if relative.suffix != SUFFIX or str(relative) != path:
        raise InvalidFields([FieldProblem("/path", f"{path!r} must name a file that ends in {SUFFIX}")])
    if any(len(part.encode()) > MAX_FILE_NAME for part in relative.parts):
        what = f"a file's name has at most {MAX_FILE_NAME} bytes"
        raise InvalidFields([FieldProblem("/path", what)])
    root = Path(project_path).resolve()
    try:
        found = (root / relative).resolve()
    except (OSError, RuntimeError):
        raise InvalidFields([FieldProblem("/path", f"{path!r} cannot be followed")]) from None
    if not found.is_relative_to(root):
        raise InvalidFields([FieldProblem("/path", f"{path!r} leads out of the project's directory")])
    return found


def import_definition(project_path: str, path: str) -> Definition:
    """The definition in an existing file of the project, unknown keys kept.

    Raises:
        InvalidFields: there is no such file.
        InvalidDefinition: it is none; names each place.
    """
    file = file_of(project_path, path)
    if file.exists() and not file.is_file():  # to open a pipe could take for ever
        raise InvalidFields([FieldProblem("/path", f"{path!r} is not a file")])
    try:
        with file.open("rb") as opened:
            source = opened.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        what = f"{path!r} cannot be read: {error.strerror or type(error).__name__}"
        raise InvalidFields([FieldProblem("/path", what)]) from None
    return parse(source)


def requested_definition(name: str | None, document: dict[str, Any] | None) -> Definition:
    """The definition of a pipeline to create: the one that is given, or an empty one of this name.

    Raises:
        InvalidDefinition: it is none; names each place.
        InvalidFields: neither is given, or they disagree.
    """
    if document is None:
        if name is None:
            raise InvalidFields([FieldProblem("/name", "give a name, or a definition")])
        return new_definition(name)
    definition = read_definition(document)
    if name is not None and name != definition.name:
        what = f"differs from the definition's own name {definition.name!r}; leave it out"
        raise InvalidFields([FieldProblem("/name", what)])
    return definition


def usual_path(name: str) -> str:
    """The file of a pipeline for which no path is given."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_SLUG].strip("-")
    return (slug or "pipeline") + SUFFIX


@contextmanager
def staged(file: Path, document: Mapping[str, Any]) -> Iterator[Callable[[], object]]:
    """Write a pipeline file beside its place; the body calls what it is given to put it there.

    So a full disk stops the transaction in the body, and a transaction that fails leaves the file as it was.

    Raises:
        InvalidFields: the file cannot be written.
    """
    temporary = file.with_name(f".{new_uuid()}{STAGED}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        temporary.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        what = f"cannot be written: {error.strerror or type(error).__name__}"
        raise InvalidFields([FieldProblem("/path", what)]) from None
    try:
        yield partial(temporary.replace, file)
    finally:
        temporary.unlink(missing_ok=True)


def remove_file(file: Path) -> None:
    """Remove the file of a pipeline that is gone or lies elsewhere now; what cannot be is logged and left."""
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.warning("a pipeline's file is left", path=str(file), error=type(error).__name__)
