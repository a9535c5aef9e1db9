"""No text of anybody's flows to telemetry, in code that tests run and in code that they do not."""

import ast
import re
from pathlib import Path

import pytest

from orchest.events import CATALOGUE
from tests.house.call_sites import python_files, scopes
from tests.house.tainted_flows import Flows, own_and_nested, sinks
from tests.house.telemetry_world import free_columns, holds_text, private

SRC = Path(__file__).resolve().parents[2] / "src"
FACTS = {f.name for t in CATALOGUE.recorded for f in private(t.cls) if holds_text(f)}  # type: ignore[arg-type]
COLUMNS = frozenset(column.name for column in free_columns()) | {"schedule"} | FACTS

ALLOWED = {
    "clarion/canary.py: TelemetryData gets field.name": "the name of a declared field, which is a key",
}
"""What only looks like a flow, with the reason."""


def test_no_text_flows_to_telemetry() -> None:
    files = list(python_files(SRC / "orchest", SRC / "clarion", SRC / "_orchest"))
    assert len(files) > 150
    found = [flow for name, source in files for flow in Flows(COLUMNS).of(name, source)]
    assert {re.sub(r":\d+", "", flow) for flow in found} == set(ALLOWED)


def test_there_are_sinks_where_telemetry_is_sent() -> None:
    def is_sink(source: str) -> bool:
        return any(
            True
            for scope in scopes(ast.parse(source))
            for n in own_and_nested(scope)
            for _ in sinks(scope, n)
        )

    seen = {name for name, source in python_files(SRC / "orchest", SRC / "clarion") if is_sink(source)}
    assert {
        "clarion/analytics/capturing.py",
        "clarion/api/analytics.py",
        "orchest/api/jobs.py",
        "orchest/api/pipelines.py",
        "orchest/events/jobs.py",
        "orchest/events/sessions.py",
        "orchest/heartbeat.py",
    } <= seen


def test_the_columns_are_the_models_own() -> None:
    assert {"name", "path", "definition", "env_variables", "project_name", "job_changes"} <= COLUMNS
    assert not {"status", "id", "job_status"} & COLUMNS


def handler(body: str) -> str:
    return "def handler(app, job, request, names):\n" + "".join(f"  {line}\n" for line in body.splitlines())


@pytest.mark.parametrize(
    ("body", "gets"),
    [
        ("send_event(app, Event.A, TelemetryData({'n': job.name}))", "job.name"),
        ("told = job.name\nsend_event(app, Event.A, TelemetryData({'n': told}))", "job.name"),
        ("a = job.path\nb = [a]\nc = {'x': b}\nTelemetryData(c)", "job.path"),
        ("c = {}\nc['x'] = job.path\nTelemetryData(c)", "job.path"),
        ("c = []\nc.append(job.path)\nTelemetryData({'x': c})", "job.path"),
        ("x = f'{job.name}!'\nTelemetryData({'x': x.upper()})", "job.name"),
        ("x = hashlib.sha256(job.name.encode()).hexdigest()\nTelemetryData({'x': x})", "job.name"),
        ("a, b = 1, job.name\nTelemetryData({'x': b})", "job.name"),
        ("for one in job.env_variables:\n  TelemetryData({'x': one})", "job.env_variables"),
        ("TelemetryData({'x': [n for n in job.env_variables]})", "job.env_variables"),
        ("if (told := job.name):\n  TelemetryData({'x': told})", "job.name"),
        ("TelemetryData(event_properties={'x': request.headers['user-agent']})", "request.headers"),
        ("body = await request.json()\nTelemetryData(body)", "request.json"),
        ("TelemetryData({'x': os.environ['HOME']})", "environ"),
        ("TelemetryData({'x': os.getenv('HOME')})", "getenv"),
        ("TelemetryData({'x': socket.gethostname()})", "gethostname"),
        ("try:\n  pass\nexcept ValueError as error:\n  TelemetryData({'x': str(error)})", "an exception"),
        ("TelemetryData({'x': traceback.format_exc()})", "format_exc"),
        ("connection.execute(insert(Capture).values(type='a', telemetry={'x': job.name}))", "job.name"),
        ("Capture(type='a', telemetry={'x': job.name})", "job.name"),
        ("TelemetryData({'x': job.name if names else 'other'})", "job.name"),
        ("TelemetryData({'x': len(job.name)})", ""),
        ("TelemetryData({'x': job.name == 'demo'})", ""),
        ("TelemetryData({'x': sum(1 for name in job.env_variables)})", ""),
        ("TelemetryData({'x': 'demo' if job.name == 'demo' else 'other'})", ""),
        ("TelemetryData({'x': schedule_kind(job.schedule)})", ""),
        ("TelemetryData({'x': pseudonym(key, 'job', job.uuid)})", ""),
        ("TelemetryData({'active': True})\nlog(job.name)", ""),
        ("told = job.name\nsend_event(app, Event.A)", ""),
        ("query = select(Job.name)\nTelemetryData({'x': query})", ""),
    ],
)
def test_a_flow_is_found(body: str, gets: str) -> None:
    found = Flows(COLUMNS).of("x.py", handler(body).replace("def", "async def", 1))
    assert bool(found) is bool(gets), found
    assert all(gets in flow for flow in found)


@pytest.mark.parametrize(
    ("decorator", "body", "flows"),
    [
        ("measure(purpose='p')", "return self.name", True),
        ("measure", "x = self.name\n    return x", True),
        ("measure(purpose='p')", "return len(self.name)", False),
        ("measure(purpose='p')", "return self.given('definition')", True),
        ("measure(purpose='p')", "x: int = self.given('bytes')\n    return x / 2", False),
        ("derived(anonymous=True, purpose='p')", "return self.path", True),
        ("derived", "return self.path", False),
    ],
)
def test_what_a_measure_returns_is_sent(decorator: str, body: str, flows: bool) -> None:
    source = f"class AnEvent:\n  @{decorator}\n  def told(self):\n    {body}\n"
    assert bool(Flows(COLUMNS).of("x.py", source)) is flows
