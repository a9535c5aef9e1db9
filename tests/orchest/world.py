"""One of everything on the platform, as rows, with a definition full of what must never leave."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from orchest.events import Links
from orchest.models import (
    CronRun,
    Environment,
    EnvironmentImageBuild,
    InteractiveSession,
    Job,
    JobStatus,
    JupyterImageBuild,
    Language,
    Pipeline,
    PipelineRun,
    PipelineRunStep,
    Project,
    Status,
)

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
LINKS = Links("https://orchest.example/")
PIPELINE = "6b1c5931-8bf7-4587-b3ae-06f7ee5ccb8a"
LOAD, TRAIN = "11111111-8bf7-4587-b3ae-06f7ee5ccb8a", "22222222-8bf7-4587-b3ae-06f7ee5ccb8a"

DEFINITION: dict[str, Any] = {
    "uuid": PIPELINE,
    "name": "private-pipeline",
    "version": "1.0.0",
    "unknownToplevel": "private-unknown",
    "parameters": {"private-parameter": "private-value", "api_key": "private-key", "marked": "private-mark"},
    "settings": {"secret_parameters": ["marked"], "data_passing_memory_size": "1GB"},
    "steps": {
        LOAD: {
            "uuid": LOAD,
            "title": "private-load",
            "file_path": "private-load.py",
            "environment": "private-environment",
            "kernel": {"name": "python", "display_name": "private-kernel"},
            "parameters": {"rows": 10},
            "incoming_connections": [],
            "unknownInStep": "private-unknown",
        },
        TRAIN: {
            "uuid": TRAIN,
            "title": "private-train",
            "file_path": "private-train.ipynb",
            "parameters": {},
            "incoming_connections": [LOAD],
        },
    },
    "services": {
        "private-service": {
            "name": "private-service",
            "image": "private-image",
            "command": "private-command",
            "scope": ["interactive"],
            "binds": {"/private-bind": "/data"},
            "env_variables": {"PRIVATE": "private-variable"},
            "unknownInService": "private-unknown",
        },
        "private-batch": {"name": "private-batch", "scope": ["noninteractive"], "binds": {"/a": "/b"}},
    },
}


@dataclass
class World:
    """The rows, by what they are. ``job`` is one-off, ``cron`` has a schedule."""

    project: Project
    pipeline: Pipeline
    environment: Environment
    build: EnvironmentImageBuild
    jupyter: JupyterImageBuild
    live: InteractiveSession
    live_run: PipelineRun
    job: Job
    job_run: PipelineRun
    cron: Job
    cron_run: CronRun
    cron_pipeline_run: PipelineRun

    @classmethod
    def in_session(cls, session: Session) -> "World":
        project = Project(name="private-project", path="/private", created=NOW)
        pipeline = Pipeline(
            project=project,
            uuid=PIPELINE,
            name="private-pipeline",
            path="private.orchest",
            definition=DEFINITION,
            created=NOW,
            saved=NOW,
        )
        session.add_all([project, pipeline])
        session.flush()
        environment = Environment(
            project=project, name="private-environment", base="base", language=Language.PYTHON, created=NOW
        )
        build = EnvironmentImageBuild(environment=environment, image_tag=3, requested=NOW, gpu_support=True)
        jupyter = JupyterImageBuild(image_tag=1, requested=NOW)
        live = InteractiveSession(pipeline=pipeline, definition=DEFINITION, requested=NOW)
        job = make_job(project)
        cron = make_job(project, schedule="0 4 * * 1", status=JobStatus.STARTED, next_scheduled_time=NOW)
        cron_run = CronRun(job=cron, number=7, started=NOW, total_pipeline_runs=2)
        world = cls(
            project=project,
            pipeline=pipeline,
            environment=environment,
            build=build,
            jupyter=jupyter,
            live=live,
            live_run=make_run(project, number=5),
            job=job,
            job_run=make_run(project, job=job, number=1),
            cron=cron,
            cron_run=cron_run,
            cron_pipeline_run=make_run(project, job=cron, cron_run=cron_run, number=13, number_in_run=2),
        )
        session.add_all(vars(world).values())
        session.flush()
        return world


def make_job(project: Project, **values: Any) -> Job:
    return Job(
        project=project,
        pipeline_uuid=PIPELINE,
        name="private-job",
        pipeline_name="private-pipeline",
        definition=DEFINITION,
        parameters=[{"pipeline": {"x": 1}}, {"pipeline": {"x": 2}}],
        env_variables={"PRIVATE": "private-variable"},
        snapshot_size=12_345_678,
        created=NOW,
        **values,
    )


def make_run(project: Project, **values: Any) -> PipelineRun:
    """A failed run: its first step failed, its second was never reached."""
    return PipelineRun(
        project=project,
        pipeline_uuid=PIPELINE,
        pipeline_name="private-pipeline",
        definition=DEFINITION,
        status=Status.FAILURE,
        requested=NOW,
        started=NOW,
        finished=NOW,
        parameters={
            "pipeline": {"private-parameter": "given", "password": "private-word"},
            LOAD: {"rows": 20},
        },
        steps=[
            PipelineRunStep(
                step_uuid=LOAD, position=0, title="private-load", status=Status.FAILURE, finished=NOW
            ),
            PipelineRunStep(
                step_uuid=TRAIN, position=1, title="private-train", status=Status.ABORTED, finished=NOW
            ),
        ],
        **values,
    )
