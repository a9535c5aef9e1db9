"""The contract of the platform's events: the types, what each family tells whom, and what nobody is told."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from sqlalchemy import event as listen
from sqlalchemy import select
from sqlalchemy.orm import Session

from clarion.anonymous import MAX_DEPTH, levels, pseudonym, schema
from clarion.errors import ConfigurationError, InvalidEvent, InvalidSubscription
from clarion.events import Event
from clarion.outbox import record
from clarion.subscriptions import subscription
from orchest.definition import Definition
from orchest.events import (
    CATALOGUE,
    ChangedObject,
    CronJobEvent,
    CronJobPipelineRunEvent,
    CronRunEvent,
    DebugPingEvent,
    EnvironmentEvent,
    EnvironmentImageBuildEvent,
    HeartbeatTrigger,
    InteractivePipelineRunEvent,
    JupyterImageBuildEvent,
    Links,
    OneOffJobEvent,
    OneOffJobPipelineRunEvent,
    PipelineEvent,
    ProjectEvent,
    SessionEvent,
    ViewLoaded,
    about_cron_job,
    about_cron_pipeline_run,
    about_cron_run,
    about_environment,
    about_environment_build,
    about_interactive_run,
    about_jupyter_build,
    about_one_off_job,
    about_one_off_pipeline_run,
    about_pipeline,
    about_project,
    about_session,
    change,
    job_event,
    pipeline_run_event,
    register,
    variable_changes,
)
from orchest.events.register import recording_in, register_event
from orchest.models import PipelineRun, Status
from orchest.shape import Shape, shape_of
from tests.orchest.world import LINKS, LOAD, NOW, PIPELINE, TRAIN, World

FAMILIES = {
    "project": "created updated deleted",
    "project:environment": "created deleted",
    "project:environment:image-build": "created started succeeded failed cancelled",
    "project:pipeline": "created updated deleted",
    "project:pipeline:interactive-session": "started succeeded failed stopped service-restarted",
    "project:pipeline:interactive-session:pipeline-run": "created started succeeded failed cancelled",
    "project:one-off-job": "created updated started succeeded failed cancelled deleted",
    "project:one-off-job:pipeline-run": "created started succeeded failed cancelled deleted",
    "project:cron-job": "created updated started failed cancelled deleted paused unpaused",
    "project:cron-job:run": "started succeeded failed",
    "project:cron-job:run:pipeline-run": "created started succeeded failed cancelled deleted",
    "jupyter:image-build": "created started succeeded failed cancelled",
}
RECORDED = {f"{kind}:{verb}" for kind, verbs in FAMILIES.items() for verb in verbs.split()}
BROWSER = {"view:loaded", "alert:shown", "confirm:shown"}
WEBSERVER = {
    "heartbeat-trigger",
    "project:one-off-job:duplicated",
    "project:cron-job:duplicated",
    "project:pipeline:saved",
}

KEY = b"k" * 32

SHAPE = {
    "pipeline_parameters_count": 3,
    "step_count": 2,
    "unique_environments_count": 1,
    "step_parameters_count": 1,
    "step_file_extension_count": {"py": 1, "ipynb": 1, "r": 0, "jl": 0, "sh": 0, "other": 0},
    "services_count": 2,
    "binds_count": 2,
    "max_depth": 2,
    "edge_count": 1,
}

CHANGES = change(ChangedObject.NAME, "private-old", "private-new")


def values_for(cls: type[Event], verb: str, world: World) -> dict[str, Any]:
    """What the platform would give an event of this type."""
    changes = CHANGES if verb == "updated" else None
    restarted = {"restarted_service": "private-service", "active_runs": True}
    about: dict[type[Event], Callable[[], dict[str, Any]]] = {
        ProjectEvent: lambda: about_project(world.project, LINKS, changes),
        PipelineEvent: lambda: about_pipeline(world.pipeline, LINKS, changes),
        EnvironmentEvent: lambda: about_environment(world.environment, LINKS),
        EnvironmentImageBuildEvent: lambda: about_environment_build(world.build, LINKS),
        JupyterImageBuildEvent: lambda: about_jupyter_build(world.jupyter),
        SessionEvent: lambda: (
            about_session(world.live, LINKS) | (restarted if verb == "service-restarted" else {})
        ),
        InteractivePipelineRunEvent: lambda: about_interactive_run(world.live_run, world.live, LINKS),
        OneOffJobEvent: lambda: about_one_off_job(world.job, LINKS, changes),
        OneOffJobPipelineRunEvent: lambda: about_one_off_pipeline_run(world.job_run, LINKS),
        CronJobEvent: lambda: about_cron_job(world.cron, LINKS, changes),
        CronRunEvent: lambda: about_cron_run(world.cron_run, LINKS),
        CronJobPipelineRunEvent: lambda: about_cron_pipeline_run(world.cron_pipeline_run, LINKS),
        DebugPingEvent: dict,
    }
    return about[cls]()


def told(session: Session, event: Event) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Record it: what subscribers see, and telemetry's event and derived properties, as JSON says them."""
    record(session, event)
    notification, telemetry = json.loads(
        json.dumps([event.notification, event.telemetry], default=lambda value: value.isoformat())
    )
    return notification, telemetry["event_properties"], telemetry["derived_properties"]


def recorded(session: Session, world: World, cls: type[Event], verb: str) -> Any:
    return told(session, cls(verb, **values_for(cls, verb, world)))


def without_root(payload: dict[str, Any]) -> dict[str, Any]:
    root = ("uuid", "type", "timestamp", "summary", "schema_version")
    return {key: value for key, value in payload.items() if key not in root}


@contextmanager
def statements(session: Session) -> Iterator[list[str]]:
    """The statements that ``session``'s connection executes."""
    seen: list[str] = []
    connection = session.connection()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    listen.listen(connection, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        listen.remove(connection, "before_cursor_execute", note)


# The types


def test_the_types_are_those_of_the_contract() -> None:
    sources = {source: {t.name for t in CATALOGUE if t.source == source} for source in ("api", "browser")}
    assert len(RECORDED) == 58
    assert sources["api"] == RECORDED | {"debug-ping"}
    assert sources["browser"] == BROWSER
    assert {t.name for t in CATALOGUE if t.source == "webserver"} == WEBSERVER
    assert len(CATALOGUE) == 66
    assert len(CATALOGUE.recorded) == 59


def test_every_field_says_what_it_is_and_what_telemetry_wants_it_for() -> None:
    for event_type in CATALOGUE:
        for field in event_type.fields:
            where = f"{event_type.name} {'.'.join(field.path)}"
            assert field.declared.doc, where
            if field.in_telemetry and field.role != "identity":
                assert field.declared.purpose, where


def test_nothing_may_lie_deeper_in_telemetry_than_the_deepest_does() -> None:
    deep = {
        ".".join(field.path): len(field.path) + levels(schema(field.type))
        for event_type in CATALOGUE
        for field in event_type.fields
        if field.in_telemetry and field.role != "identity"
    }
    deepest = [path for path, many in deep.items() if many == max(deep.values())]
    assert deepest == ["project.pipeline.session.pipeline_run.definition.step_file_extension_count"]
    assert max(deep.values()) == MAX_DEPTH


def test_nobody_can_subscribe_to_what_is_only_telemetry() -> None:
    with pytest.raises(InvalidSubscription, match="no event type matches 'view:loaded'"):
        subscription(CATALOGUE, "view:loaded")
    assert subscription(CATALOGUE, "*:duplicated".replace("duplicated", "failed")).pattern == "*:failed"
    with pytest.raises(InvalidSubscription, match="no event type matches"):
        subscription(CATALOGUE, "*:duplicated")


def test_a_captured_type_takes_its_declared_properties_and_no_others() -> None:
    assert HeartbeatTrigger.properties({"active": True}) == {"active": True}
    assert ViewLoaded.properties({"name": "jobs"}) == {"name": "jobs"}
    assert ViewLoaded.properties({"name": "Jobs of Jane Doe"}) == {"name": "other"}
    with pytest.raises(InvalidEvent, match="undeclared property 'path'") as caught:
        ViewLoaded.properties({"name": "jobs", "path": "/home/jane"})
    assert "jane" not in str(caught.value)
    with pytest.raises(InvalidEvent, match="missing property 'active'"):
        HeartbeatTrigger.properties({})


def test_a_class_of_one_type_can_do_without_a_verb() -> None:
    ping = DebugPingEvent("")
    assert (ping.type, ping.kind, ping.verb) == ("debug-ping", "debug-ping", "")


# What each family tells


@pytest.mark.parametrize("kind", [*FAMILIES, "debug-ping"])
def test_every_type_is_recorded_as_its_schemas_say(session: Session, world: World, kind: str) -> None:
    types = [t for t in CATALOGUE.recorded if t.kind == kind]
    assert types
    for event_type in types:
        cls = event_type.cls
        assert issubclass(cls, Event)
        event = cls(event_type.verb, **values_for(cls, event_type.verb, world))
        notification, properties, derived = told(session, event)
        Draft202012Validator(event_type.notification_schema()).validate(notification)
        telemetry = {"event_properties": properties, "derived_properties": derived}
        Draft202012Validator(event_type.telemetry_schema()).validate(telemetry)
        assert notification["type"] == event_type.name
        assert notification["timestamp"] == properties["timestamp"] == "2026-03-01T12:30:00.000Z"
        assert notification["summary"]
        assert "{" not in notification["summary"]
        sent = json.dumps(telemetry)
        assert "private" not in sent, "telemetry says what a user wrote"
        for identity in (world.project.uuid, world.job.uuid, PIPELINE, LOAD, str(event.uuid)):
            assert identity not in sent, "telemetry carries an identifier"
        assert None not in measures_of(derived), "a measure could not be computed"


def measures_of(payload: Any) -> list[Any]:
    if isinstance(payload, dict):
        return [leaf for value in payload.values() for leaf in measures_of(value)]
    return [payload]


def project_layer(world: World) -> dict[str, Any]:
    return {
        "uuid": world.project.uuid,
        "name": "private-project",
        "url": f"https://orchest.example/projects/{world.project.uuid}",
    }


def project_pseudonym(world: World) -> str:
    return pseudonym(KEY, "project", world.project.uuid)


def test_a_project(session: Session, world: World) -> None:
    notification, properties, derived = recorded(session, world, ProjectEvent, "created")
    assert without_root(notification) == {"project": project_layer(world)}
    assert without_root(properties) == {"project": {"uuid": project_pseudonym(world)}}
    assert derived == {"project": {"projects_count": 1}}
    assert notification["summary"] == "Project private-project was created"


def test_the_last_one_leaves_none(session: Session) -> None:
    project = {"project_uuid": "p", "project_name": "private", "project_url": "https://orchest.example/p"}
    pipeline = {"pipeline_uuid": "l", "pipeline_name": "private", "pipeline_url": "https://orchest.example/l"}
    *_, derived = told(session, ProjectEvent("deleted", **project))
    assert derived == {"project": {"projects_count": 0}}
    *_, derived = told(session, PipelineEvent("deleted", **project, **pipeline))
    assert derived == {"project": {"pipeline": {"project_pipelines_count": 0}}}


def test_an_update_is_told_once_and_counted(session: Session, world: World) -> None:
    changes = [
        {
            "type": "UPDATED",
            "changed_object": "NAME",
            "old_value": "private-old",
            "new_value": "private-new",
        }
    ]
    for cls, path in ((ProjectEvent, ()), (PipelineEvent, ("pipeline",)), (OneOffJobEvent, ("job",))):
        notification, properties, derived = recorded(session, world, cls, "updated")
        layers = [payload["project"] for payload in (notification, properties, derived)]
        for key in path:
            layers = [layer[key] for layer in layers]
        assert layers[0]["update"] == {"changes": changes}
        assert "update" not in layers[1]
        assert layers[2]["update"] == {"counts": {"NAME": {"UPDATED": 1}}}


def test_a_pipeline_is_named_by_its_own_uuid(session: Session, world: World) -> None:
    notification, properties, derived = recorded(session, world, PipelineEvent, "deleted")
    url = f"https://orchest.example/projects/{world.project.uuid}/pipelines/{PIPELINE}"
    pipeline = {"uuid": PIPELINE, "name": "private-pipeline", "url": url}
    assert without_root(notification) == {"project": {**project_layer(world), "pipeline": pipeline}}
    assert properties["project"]["pipeline"] == {"uuid": pseudonym(KEY, "pipeline", PIPELINE)}
    assert notification["uuid"] != PIPELINE
    assert derived == {"project": {"pipeline": {"project_pipelines_count": 1}}}


def test_a_session(session: Session, world: World) -> None:
    notification, properties, derived = recorded(session, world, SessionEvent, "started")
    assert notification["project"]["pipeline"]["session"] == {
        "status": "LAUNCHING",
        "services": ["private-service"],
    }
    assert properties["project"]["pipeline"]["session"] == {"status": "LAUNCHING"}
    assert derived["project"]["pipeline"]["session"] == {"services_count": 1, "binds_count": 1}


def test_whether_runs_are_active_is_telemetry_of_a_restart(session: Session, world: World) -> None:
    notification, properties, _ = recorded(session, world, SessionEvent, "service-restarted")
    told_users = notification["project"]["pipeline"]["session"]
    assert told_users["restarted_service"] == "private-service"
    assert "active_runs" not in told_users
    assert properties["project"]["pipeline"]["session"] == {"status": "LAUNCHING", "active_runs": True}
    with pytest.raises(InvalidEvent, match="missing fact 'active_runs'"):
        SessionEvent("service-restarted", restarted_service="x", **about_session(world.live, LINKS))
    with pytest.raises(InvalidEvent, match="unknown field 'active_runs'"):
        SessionEvent("stopped", active_runs=True, **about_session(world.live, LINKS))


def test_an_interactive_run(session: Session, world: World) -> None:
    notification, properties, derived = recorded(session, world, InteractivePipelineRunEvent, "failed")
    run = world.live_run
    assert notification["project"]["pipeline"]["session"]["pipeline_run"] == {
        "uuid": run.uuid,
        "status": "FAILURE",
        "number": 5,
        "url": f"{LINKS.base}projects/{run.project_uuid}/pipelines/{PIPELINE}/runs/{run.uuid}",
        "steps": [{"uuid": LOAD, "title": "private-load"}, {"uuid": TRAIN, "title": "private-train"}],
        "parameters": {
            "pipeline": {
                "private-parameter": "given",
                "api_key": "[redacted]",
                "marked": "[redacted]",
                "password": "[redacted]",
            },
            LOAD: {"rows": 20},
        },
        "failed_steps": [{"uuid": LOAD, "title": "private-load"}],
    }
    assert properties["project"]["pipeline"]["session"]["pipeline_run"] == {
        "uuid": pseudonym(KEY, "pipeline_run", run.uuid),
        "status": "FAILURE",
        "number": 5,
    }
    assert derived["project"]["pipeline"]["session"]["pipeline_run"] == {
        "steps_count": 2,
        "failed_steps_count": 1,
        "parameters_count": 5,
        "definition": SHAPE,
    }


def test_an_environment(session: Session, world: World) -> None:
    notification, properties, derived = recorded(session, world, EnvironmentEvent, "created")
    uuid = world.environment.uuid
    url = f"https://orchest.example/projects/{world.project.uuid}/environments/{uuid}"
    assert notification["project"]["environment"] == {"uuid": uuid, "name": "private-environment", "url": url}
    assert properties["project"]["environment"] == {"uuid": pseudonym(KEY, "environment", uuid)}
    assert derived == {}


@pytest.mark.parametrize(
    ("cls", "path", "tag", "gpu"),
    [
        (EnvironmentImageBuildEvent, ("project", "environment"), 3, True),
        (JupyterImageBuildEvent, ("jupyter",), 1, False),
    ],
)
def test_an_image_build_tells_its_users_something(
    session: Session, world: World, cls: type[Event], path: tuple[str, ...], tag: int, gpu: bool
) -> None:
    layers = recorded(session, world, cls, "created")
    for key in (*path, "image_build"):
        layers = tuple(layer[key] for layer in layers)
    seen, properties, derived = layers
    assert seen.pop("requested_time") == NOW.isoformat()
    assert seen == {"image_tag": tag, "status": "PENDING", "started_time": None, "finished_time": None}
    assert properties == {
        **seen,
        "requested_time": "2026-03-01T12:30:00.000Z",
        "gpu_support": gpu,
        "language": "python",
    }
    assert derived == {"uses_base_image_of_ours": True}


def test_a_one_off_job(session: Session, world: World) -> None:
    notification, properties, derived = recorded(session, world, OneOffJobEvent, "created")
    job = world.job
    assert notification["project"]["job"] == {
        "uuid": job.uuid,
        "name": "private-job",
        "status": "DRAFT",
        "pipeline_name": "private-pipeline",
        "url": f"https://orchest.example/projects/{world.project.uuid}/jobs/{job.uuid}",
        "total_runs": 0,
    }
    assert properties["project"]["job"] == {
        "uuid": pseudonym(KEY, "job", job.uuid),
        "status": "DRAFT",
        "total_runs": 0,
    }
    assert derived["project"]["job"] == {
        "snapshot_size": 12.3,
        "definition": {"parameterized_runs_count": 2, "env_variables_count": 1, **SHAPE},
    }
    _, _, derived = recorded(session, world, OneOffJobEvent, "failed")
    assert derived == {}


def test_a_cron_job_tells_its_schedule_to_users_only(session: Session, world: World) -> None:
    for verb in FAMILIES["project:cron-job"].split():
        notification, properties, derived = recorded(session, world, CronJobEvent, verb)
        assert notification["project"]["job"]["schedule"] == "0 4 * * 1"
        assert notification["project"]["job"]["next_scheduled_time"] == NOW.isoformat()
        assert "0 4" not in json.dumps([properties, derived])
        assert derived["project"]["job"]["schedule_kind"] == "weekly"
        assert "next_scheduled_time" not in properties["project"]["job"]


def test_a_cron_run_and_its_pipeline_run(session: Session, world: World) -> None:
    notification, properties, derived = recorded(session, world, CronJobPipelineRunEvent, "failed")
    run = notification["project"]["job"]["run"]
    pipeline_run = run.pop("pipeline_run")
    assert run == {"uuid": world.cron_run.uuid, "number": 7, "status": "STARTED", "total_pipeline_runs": 2}
    row = world.cron_pipeline_run
    assert pipeline_run == {
        "uuid": row.uuid,
        "status": "FAILURE",
        "number": 13,
        "number_in_run": 2,
        "url": f"{LINKS.base}projects/{row.project_uuid}/jobs/{row.job_uuid}/runs/{row.uuid}",
        "parameters": {
            "pipeline": {"private-parameter": "given", "password": "[redacted]"},
            LOAD: {"rows": 20},
        },
        "failed_steps": [{"uuid": LOAD, "title": "private-load"}],
    }
    sent = properties["project"]["job"]["run"]
    assert sent.pop("pipeline_run") == {
        "uuid": pseudonym(KEY, "pipeline_run", row.uuid),
        "status": "FAILURE",
        "number": 13,
        "number_in_run": 2,
    }
    assert sent == {**run, "uuid": pseudonym(KEY, "run", world.cron_run.uuid)}
    assert derived["project"]["job"]["run"]["pipeline_run"] == {
        "failed_steps_count": 1,
        "parameters_count": 3,
        "parameterized_steps_count": 1,
    }


def test_a_run_that_did_not_fail_has_no_failed_steps(session: Session, world: World) -> None:
    world.job_run.status = Status.ABORTED
    notification, _, derived = recorded(session, world, OneOffJobPipelineRunEvent, "cancelled")
    run = notification["project"]["job"]["pipeline_run"]
    assert run["failed_steps"] is None
    assert "number_in_run" not in run
    assert derived["project"]["job"]["pipeline_run"]["failed_steps_count"] == 0


# What nobody is told, and what it costs


def test_a_definition_that_cannot_be_read_never_fails_the_caller(session: Session, world: World) -> None:
    world.job.definition = {"steps": "private-nonsense"}
    _, _, derived = recorded(session, world, OneOffJobEvent, "created")
    assert derived["project"]["job"]["definition"]["step_count"] is None
    assert derived["project"]["job"]["definition"]["env_variables_count"] == 1


def test_a_definition_is_read_once_an_event(
    session: Session, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []

    def shape(definition: Definition) -> Shape:
        read.append(definition)
        return shape_of(definition)

    monkeypatch.setattr("orchest.events.materials.shape_of", shape)
    recorded(session, world, OneOffJobEvent, "created")
    assert len(read) == 1


def test_telemetry_that_is_off_computes_nothing(session: Session, world: World) -> None:
    session.info.clear()
    event = OneOffJobEvent("created", **about_one_off_job(world.job, LINKS))
    record(session, event)
    assert event.telemetry is None
    assert "shape" not in event.__dict__["materials_given"]


def test_the_deepest_event_costs_six_statements_with_all_it_loads(session: Session, world: World) -> None:
    uuid = world.cron_pipeline_run.uuid
    session.commit()
    session.expunge_all()
    run = session.get_one(PipelineRun, uuid)
    with statements(session) as seen:
        record(session, CronJobPipelineRunEvent("failed", **about_cron_pipeline_run(run, LINKS)))
    assert len(seen) <= 6, seen


def test_statements_do_not_grow_with_steps(session: Session, world: World) -> None:
    values = about_cron_pipeline_run(world.cron_pipeline_run, LINKS)
    values["pipeline_run_failed_steps"] *= 500
    with statements(session) as seen:
        record(session, CronJobPipelineRunEvent("failed", **values))
    assert len(seen) <= 2, seen


# Making and registering


def test_the_event_of_any_job_and_run(world: World) -> None:
    assert job_event("started", world.job, LINKS).type == "project:one-off-job:started"
    assert job_event("paused", world.cron, LINKS).type == "project:cron-job:paused"
    before = job_event("updated", world.cron, LINKS, CHANGES, cron=False)
    assert before.type == "project:one-off-job:updated"
    assert pipeline_run_event("deleted", world.job_run, LINKS).kind == "project:one-off-job:pipeline-run"
    assert (
        pipeline_run_event("deleted", world.cron_pipeline_run, LINKS).kind
        == "project:cron-job:run:pipeline-run"
    )
    interactive = pipeline_run_event("failed", world.live_run, LINKS, world.live)
    assert interactive.kind == "project:pipeline:interactive-session:pipeline-run"
    with pytest.raises(InvalidEvent, match="is interactive; say in which session"):
        pipeline_run_event("failed", world.live_run, LINKS)
    with pytest.raises(InvalidEvent, match="belongs to no job"):
        about_one_off_pipeline_run(world.live_run, LINKS)
    with pytest.raises(InvalidEvent, match="belongs to no cron run"):
        about_cron_pipeline_run(world.job_run, LINKS)


def test_every_recorded_type_has_its_function(session: Session, world: World) -> None:
    for name in sorted(RECORDED | {"debug-ping"}):
        event_type = CATALOGUE[name]
        assert issubclass(event_type.cls, Event)
        function = f"register_{name.replace(':', '_').replace('-', '_')}_event"
        assert function in dir(register)
        with recording_in(session):
            getattr(register, function)(**values_for(event_type.cls, event_type.verb, world))
        latest = select(Event.type).order_by(Event.sequence.desc()).limit(1)
        assert session.scalar(latest) == name


def test_registering_needs_a_transaction(session: Session, world: World) -> None:
    event = ProjectEvent("created", **about_project(world.project, LINKS))
    with pytest.raises(ConfigurationError, match="which transaction"):
        register_event(event)
    register_event(event, session)
    assert session.scalars(select(Event)).one().uuid == event.uuid


def test_what_is_not_recorded_has_no_function() -> None:
    with pytest.raises(AttributeError, match="send it with send_event"):
        _ = register.register_view_loaded_event
    with pytest.raises(AttributeError, match="no attribute"):
        _ = register.register_nothing_event


def test_links_are_absolute() -> None:
    assert Links("http://h:1").to("job", project="p", job="j") == "http://h:1/projects/p/jobs/j"
    with pytest.raises(ValueError, match="not an absolute"):
        Links("/orchest")


def test_changes_of_variables_name_them_and_hide_their_values() -> None:
    changes = variable_changes(
        {"A": "old-secret", "B": "1", "C": "3"}, {"A": "new-secret", "C": "3", "D": ""}
    )
    assert [(c["type"], c.get("old_value"), c.get("new_value")) for c in changes] == [
        ("UPDATED", {"A": "[redacted]"}, {"A": "[redacted]"}),
        ("DELETED", {"B": "[redacted]"}, None),
        ("CREATED", None, {"D": "[redacted]"}),
    ]
