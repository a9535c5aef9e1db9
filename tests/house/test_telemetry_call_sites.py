"""What is declared is sent somewhere, what is sent is declared, and no projection takes keys away."""

import re
from pathlib import Path

import pytest

from orchest.analytics import Event as Types
from orchest.events import CATALOGUE, Dialog
from tests.house.call_sites import Site, captures, python_files, recordings, tracked, unmaking

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
NAMES = {member.name: member.value for member in Types}
CLASSES = {t.cls.__name__ for t in CATALOGUE.recorded}
VERBS = {(t.cls.__name__, t.verb): t.name for t in CATALOGUE.recorded}

BROWSER = (SRC / "orchest/web/static", SRC / "orchest/web/templates", ROOT / "clients/browser/src")
PROJECTIONS = (
    SRC / "clarion/analytics",
    SRC / "clarion/events.py",
    SRC / "clarion/anonymous.py",
    SRC / "clarion/captured.py",
    SRC / "clarion/envelope.py",
    SRC / "clarion/deliverees/analytics.py",
    SRC / "orchest/events",
)
ALLOWED = {
    "analytics/payload.py waiting.pop()": "a stack of what is still to be looked at, of its own making",
    "events.py querying.pop(0)": "a list of fields still to be computed, of its own making",
    "events/materials.py values.pop(name)": "parts keywords from keywords: `values` is the call's own dict",
}


def captured_in_source() -> list[Site]:
    return [site for file in python_files(SRC / "orchest") for site in captures(*file) if is_type(site.what)]


def is_type(what: str) -> bool:
    """A member of the enumeration, or a text that looks like a type: ``socket.send(b)`` has neither."""
    return what.isupper() or re.fullmatch(r"[a-z0-9-]+(:[a-z0-9-]+)+", what) is not None


def tracked_in_browser() -> list[Site]:
    paths = [
        p for root in BROWSER for p in sorted(root.rglob("*")) if p.suffix in (".js", ".ts", ".tsx", ".html")
    ]
    return [site for p in paths for site in tracked(str(p.relative_to(ROOT)), p.read_text("utf-8"))]


def recorded_in_source() -> list[Site]:
    """Where the platform records; the making of an event of several kinds is what `MADE_BY` says."""
    files = [f for f in python_files(SRC / "orchest") if not f[0].startswith("orchest/events/")]
    return [site for file in files for site in recordings(*file, CLASSES)]


def test_every_type_of_the_web_server_is_sent_somewhere() -> None:
    sent = {NAMES.get(site.what, site.what) for site in captured_in_source()}
    assert {t.name for t in CATALOGUE if t.captured and t.source == "webserver"} <= sent


def test_every_type_of_the_browser_is_sent_somewhere() -> None:
    sent = {site.what for site in tracked_in_browser()}
    assert {t.name for t in CATALOGUE if t.source == "browser"} <= sent


def test_the_platform_s_pages_tell_of_every_alert_and_every_question_by_its_name() -> None:
    """Of those in front of whom nobody has logged in yet, nothing is told."""
    named = set()
    for root in BROWSER[:2]:
        for path in (p for p in root.rglob("*") if p.suffix in (".js", ".html") and p.name != "login.html"):
            text = path.read_text("utf-8")
            found = re.findall(r"<dialog|\b(?:alert|confirm|prompt)\(|showModal\(", text)
            assert not found, f"{path}: mark it in the page with data-alert or data-confirm instead"
            assert all("data-alert=" in tag for tag in re.findall(r'<[^>]*role="alert"[^>]*>', text)), path
            named |= set(re.findall(r'data-(?:alert|confirm)="([^"]*)"', text))
    assert {"delete-subscriber", "request-failed"} <= named <= {one.value for one in Dialog}


def test_only_declared_types_are_sent() -> None:
    sites = captured_in_source()
    assert len(sites) >= 4
    unknown = [s for s in sites if s.what not in NAMES and s.what not in NAMES.values()]
    unknown += [s for s in tracked_in_browser() if s.what not in CATALOGUE]
    assert unknown == []


def test_the_browser_sends_only_what_is_the_browser_s() -> None:
    assert [s for s in tracked_in_browser() if CATALOGUE[s.what].source != "browser"] == []


def test_each_class_of_events_is_recorded_somewhere() -> None:
    assert {site.what.partition(":")[0] for site in recorded_in_source()} == CLASSES


def test_every_call_site_is_a_declared_trigger_and_every_trigger_a_call_site() -> None:
    """What is sent from nowhere is dead, and what is sent from elsewhere nobody answers for."""
    found: dict[str, set[str]] = {}
    for site in [*recorded_in_source(), *captured_in_source(), *tracked_in_browser()]:
        name = NAMES.get(site.what, site.what)
        type_or_class = name if name in CATALOGUE else name.partition(":")[0]
        found.setdefault(type_or_class, set()).add(site.where.rpartition(":")[0].removeprefix("src/"))
    declared: dict[str, set[str]] = {}
    for event_type in CATALOGUE:
        assert event_type.cls.upkeep is not None
        name = event_type.name if event_type.captured else event_type.cls.__name__
        declared[name] = set(event_type.cls.upkeep.triggers)
    assert declared == found


def wrongly_recorded(sites: list[Site]) -> set[tuple[str, str]]:
    """Where, and with which verb, something is recorded that no class it may be of has."""
    found = [(site.where, *site.what.split(":", 1)) for site in sites]
    right = {(where, verb) for where, name, verb in found if verb == "*" or (name, verb) in VERBS}
    return {(where, verb) for where, _, verb in found} - right


def test_events_are_recorded_only_with_verbs_they_have() -> None:
    assert wrongly_recorded(recorded_in_source()) == set()
    wrong = "job_event('exploded', job)\nProjectEvent('paused')\njob_event('paused', job)"
    assert wrongly_recorded(list(recordings("x.py", wrong, CLASSES))) == {
        ("x.py:1", "exploded"),
        ("x.py:2", "paused"),
    }


def test_every_verb_is_a_word_where_its_class_is_recorded() -> None:
    """A verb that is computed comes from a table: it is written somewhere in the modules that record."""
    files = [
        f for f in python_files(SRC / "orchest") if not f[0].startswith(("orchest/events/", "orchest/tour"))
    ]
    recording = {s.where.partition(":")[0] for s in recorded_in_source()}
    words = {w for name, text in files if name in recording for w in re.findall(r'"([a-z-]*)"', text)}
    assert {verb for _, verb in VERBS} <= words


def test_projections_construct_and_take_nothing_away() -> None:
    assert [found for file in python_files(*PROJECTIONS) for found in unmaking(*file, ALLOWED)] == []


def test_what_is_allowed_is_still_there() -> None:
    found = [
        f"{name} {line.partition(': ')[2]}"
        for name, text in python_files(*PROJECTIONS)
        for line in unmaking(name, text)
    ]
    assert sorted(found) == sorted(ALLOWED)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("send_event(app, Event.A_B)", ["A_B"]),
        ("send_event(app, analytics.Event.A_B, data)", ["A_B"]),
        ("self.analytics.send(Event.A_B, data, id=x)", ["A_B"]),
        ("analytics.send('a:b')", ["a:b"]),
        ("def f():\n  kind = Event.A if x else Event.B\n  send_event(app, kind)", ["A", "B"]),
        ("def f():\n  kind = Event.A\ndef g(kind):\n  send_event(app, kind)", []),
        ("async def f():\n  with x:\n    send_event(app, Event.A)", ["A"]),
        ("event(app, Event.A)", []),
    ],
)
def test_captures_are_found(source: str, found: list[str]) -> None:
    assert [site.what for site in captures("x.py", source)] == found


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("ProjectEvent('created', **x)", ["ProjectEvent:created"]),
        ("events.ProjectEvent('erased', **x)", ["ProjectEvent:erased"]),
        ("ProjectEvent(VERBS[to], **x)", ["ProjectEvent:*"]),
        (
            "job_event('a' if x else 'b', job)",
            [f"{c}:{v}" for c in ("OneOffJobEvent", "CronJobEvent") for v in "ab"],
        ),
        ("OtherEvent('created')", []),
    ],
)
def test_recordings_are_found(source: str, found: list[str]) -> None:
    assert [site.what for site in recordings("x.py", source, {"ProjectEvent"})] == found


@pytest.mark.parametrize(
    ("source", "flagged"),
    [
        ("payload.pop('name')", True),
        ("payload.pop('name', None)", True),
        ("del payload['project']['name']", True),
        ("out = payload.copy()", True),
        ("out = copy.deepcopy(payload)", True),
        ("out = deepcopy(payload)", True),
        ("payload.clear()", True),
        ("del name", False),
        ("{'a': payload['a']}", False),
    ],
)
def test_unmaking_is_flagged(source: str, flagged: bool) -> None:
    assert bool(list(unmaking("x.py", source))) is flagged


def test_browser_code_is_read_without_its_comments() -> None:
    source = "// track('a:b')\nx.track(\"c:d\", {})\n  * track('e:f')\ntrack( 'g:h' )"
    assert [site.what for site in tracked("x.js", source)] == ["c:d", "g:h"]
    assert [site.where for site in tracked("x.js", source)] == ["x.js:2", "x.js:4"]
