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
    "clarion/analytics/capturing.py: insert gets constructed(), which returns an exception": "the reason of "
    "what is rejected, and then not stored",
}
"""What only looks like a flow, with the reason."""


def test_no_text_flows_to_telemetry() -> None:
    files = list(python_files(SRC / "orchest", SRC / "clarion", SRC / "_orchest"))
    assert len(files) > 150
    found = Flows(COLUMNS).of(files)
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


def flows(*sources: str) -> list[str]:
    """The flows of modules ``a``, ``b`` and so on."""
    return Flows(COLUMNS).of(
        zip(("a.py", "b.py", "c/__init__.py", "orchest/models/d.py"), sources, strict=False)
    )


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
    found = flows(handler(body).replace("def", "async def", 1))
    assert bool(found) is bool(gets), found
    assert all(gets in flow for flow in found)


@pytest.mark.parametrize(
    ("decorator", "body", "expected"),
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
def test_what_a_measure_returns_is_sent(decorator: str, body: str, expected: bool) -> None:
    source = f"class AnEvent:\n  @{decorator}\n  def told(self):\n    {body}\n"
    assert bool(flows(source)) is expected


SENDS = "TelemetryData({'x': "
PLACES = {
    "what a function returns": ["def of(job):\n  return job.name", f"from a import of\n{SENDS}of(job)}})"],
    "of its own module": [f"def of(job):\n  return job.name\ndef f(job):\n  {SENDS}of(job)}})"],
    "of one after another": [
        f"def g(job):\n  {SENDS}of(job)}})\ndef of(job):\n  return more(job)\n"
        "def more(job):\n  return [job.name]"
    ],
    "handed on by a package": [
        "def of(job):\n  return job.name",
        f"import c as given\n{SENDS}given.of(job)}})",
        "from a import of",
    ],
    "which is a generator": [f"def of(job):\n  yield job.name\ndef f(job):\n  {SENDS}list(of(job))}})"],
    "which is a coroutine": [
        f"async def of(job):\n  return job.name\nasync def f(job):\n  {SENDS}await of(job)}})"
    ],
    "which is a method": [
        "class A:\n  def of(self, job):\n    return job.name\n  def tell(self, job):\n    "
        + SENDS
        + "self.of(job)})"
    ],
    "which is a model's": [
        f"{SENDS}job.heading}})",
        "",
        "",
        "class Job:\n  @property\n  def heading(self):\n    return self.name",
    ],
    "and a model's method": [
        f"{SENDS}job.heading()}})",
        "",
        "",
        "class Job:\n  def heading(self):\n    return self.name",
    ],
    "what a function is given": [
        f"def tell(app, text):\n  {SENDS}text}})",
        "from a import tell\ndef f(job):\n  tell(1, job.name)",
    ],
    "by name": [f"def tell(*, text):\n  {SENDS}text}})\ndef f(job):\n  tell(text=job.name)"],
    "with others": [f"def tell(*texts):\n  {SENDS}texts}})\ndef f(job):\n  tell(1, 2, job.name)"],
    "with other names": [f"def tell(**texts):\n  {SENDS}texts}})\ndef f(job):\n  tell(a=job.name)"],
    "unpacked": [f"def tell(a, b):\n  {SENDS}b}})\ndef f(job):\n  tell(*[1, job.name])"],
    "and hands on": [
        f"def g(job):\n  tell(job.name)\ndef tell(a):\n  more(b=f'<{{a}}>')\ndef more(b):\n  {SENDS}b}})"
    ],
    "when it is made": [
        f"class Teller:\n  def __init__(self, text):\n    {SENDS}text}})",
        "from a import Teller\ndef f(job):\n  Teller(job.name)",
    ],
    "by its method": [
        f"class A:\n  def tell(self, text):\n    {SENDS}text}})\n  def f(self, job):\n    self.tell(job.name)"
    ],
    "in a measure": [
        "class E:\n  @measure(purpose='p')\n  def x(self):\n    return of(self)\ndef of(e):\n  return e.name"
    ],
}


@pytest.mark.parametrize("sources", PLACES.values(), ids=PLACES)
def test_a_flow_is_found_through_functions(sources: list[str]) -> None:
    assert flows(*sources) != []
    assert flows(*(source.replace(".name", ".id") for source in sources)) == []


@pytest.mark.parametrize(
    "sources",
    [
        [f"def tell(app, text):\n  {SENDS}text}})\ndef f(job):\n  tell(job.name, 1)"],
        [f"def of(job):\n  return len(job.name)\ndef f(job):\n  {SENDS}of(job)}})"],
        ["def of(job):\n  return job.name", f"def of(job):\n  return 1\ndef f(job):\n  {SENDS}of(job)}})"],
        [f"def of(job):\n  return job.name\ndef f(job, other):\n  {SENDS}other.of(job)}})"],
    ],
)
def test_what_other_functions_and_parameters_do_is_not_meant(sources: list[str]) -> None:
    assert flows(*sources) == []


def test_a_leak_through_a_helper_in_another_module_of_the_platform_is_found() -> None:
    """The same files as above, with one line of one changed, and a helper in another."""
    files = dict(python_files(SRC / "orchest", SRC / "clarion", SRC / "_orchest"))
    told = 'TelemetryData(event_properties={"active": was_used(used, last)})'
    assert told in files["orchest/heartbeat.py"]
    leaking = told.replace("was_used(used, last)", "newest(session)")
    files["orchest/heartbeat.py"] = "from orchest.projects import newest\n" + files[
        "orchest/heartbeat.py"
    ].replace(told, leaking)
    files["orchest/projects.py"] += "\n\ndef newest(session):\n    return session.get(Project, 1).name\n"
    flow = "orchest/heartbeat.py: TelemetryData gets newest(), which returns session.get(Project, 1).name"
    assert {re.sub(r":\d+", "", one) for one in Flows(COLUMNS).of(files.items())} == {*ALLOWED, flow}
