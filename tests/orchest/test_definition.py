import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchest.definition import InvalidDefinition, check, parse

from .building import document, uuid_of

EXAMPLE = Path(__file__).parents[2] / "examples/penguins/penguins.orchest"


def messages(source: Any) -> list[str]:
    return [problem.message for problem in check(source)]


def with_step(**fields: Any) -> dict[str, Any]:
    return document({"Clean": {**fields}})


def test_the_example_is_read_whole() -> None:
    definition = parse(EXAMPLE.read_text())
    assert definition.name == "Penguins"
    assert definition.settings.max_steps_parallelism == 2
    assert [step.title for step in definition.steps.values()] == [
        "Load",
        "Clean",
        "Fit species",
        "Fit body mass",
        "Report",
    ]
    report = list(definition.steps.values())[-1]
    assert [definition.steps[uuid].title for uuid in report.incoming] == [
        "Clean",
        "Fit species",
        "Fit body mass",
    ]
    assert len(definition.ancestors([report.uuid])) == 4


def test_unknown_keys_are_kept_as_they_are() -> None:
    source = document({"Clean": {"file_path": "a.py"}}, colour={"of": ["the", "sky"]})
    source["steps"][uuid_of("Clean")]["meta_data"] = {"position": [1.5, 2], "hidden": False, "new": None}
    source["services"] = {"db": {"name": "db", "image": "postgres", "future": [1, {"x": 2}]}}
    definition = parse(json.dumps(source))
    assert json.loads(definition.to_json()) == source
    assert "future" not in repr(definition)


def test_what_is_parsed_does_not_change_with_what_it_was_parsed_from() -> None:
    source = with_step(parameters={"a": [1]})
    definition = parse(source)
    source["steps"][uuid_of("Clean")]["parameters"]["a"].append(2)
    assert definition.steps[uuid_of("Clean")].parameters == {"a": [1]}
    assert definition.document["steps"][uuid_of("Clean")]["parameters"] == {"a": [1]}


def test_services_are_read() -> None:
    service = {
        "name": "vscode",
        "image": "codercom/code-server:latest",
        "command": "-c 'code-server'",
        "entrypoint": "bash",
        "binds": {"/project-dir": "/home/coder"},
        "ports": [8080],
        "scope": ["interactive"],
        "env_variables": {"A": "1"},
        "preserve_base_path": True,
    }
    read = parse(document({}, services={"vscode": service})).services["vscode"]
    assert (read.ports, read.scope, read.binds) == (
        (8080,),
        ("interactive",),
        {"/project-dir": "/home/coder"},
    )
    assert read.preserve_base_path


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"file_path": "/etc/passwd.py"}, "must be relative"),
        ({"file_path": "..\\x.py"}, "must be relative"),
        ({"file_path": "a/../../b.py"}, "leaves the project"),
        ({"file_path": "../b.py"}, "leaves the project"),
        ({"file_path": "run.exe"}, "unknown extension; known are .py, .ipynb, .r, .jl, .sh"),
        ({"file_path": "run"}, "unknown extension"),
        ({"file_path": ""}, "file_path must be a non-empty text"),
        ({"file_path": None}, "file_path must be a non-empty text"),
        ({"file_path": 5}, "file_path must be a non-empty text"),
        ({"parameters": [1]}, "parameters must be a JSON object, not a list"),
        ({"parameters": "x"}, "parameters must be a JSON object, not text"),
        ({"parameters": None}, "parameters must be a JSON object, not null"),
        ({"parameters": {"x": "y" * 70_000}}, "parameters are larger than 65536 bytes"),
        ({"incoming_connections": ["nobody"]}, "incoming connection nobody does not exist"),
        ({"incoming_connections": "x"}, "incoming_connections must be a list"),
        ({"incoming_connections": [5]}, "incoming_connections must be a list"),
        ({"kernel": "python"}, "kernel must be a JSON object"),
        ({"environment": 3}, "environment must be text"),
        ({"uuid": uuid_of("Other")}, "differs from the key"),
    ],
)
def test_a_wrong_step_is_named(fields: dict[str, Any], expected: str) -> None:
    found = messages(with_step(**fields))
    assert len(found) == 1, found
    assert found[0].startswith(f"step 'Clean' ({uuid_of('Clean')}): ")
    assert expected in found[0]


def test_a_problem_points_at_its_place() -> None:
    (problem,) = check(with_step(file_path="../x.py"))
    assert problem.path == f"/steps/{uuid_of('Clean')}/file_path"


@pytest.mark.parametrize("extension", ["py", "ipynb", "R", "r", "jl", "sh"])
def test_known_extensions_are_accepted(extension: str) -> None:
    definition = parse(with_step(file_path=f"dir/step.{extension}"))
    assert definition.steps[uuid_of("Clean")].extension == extension.lower()


@pytest.mark.parametrize("value", [0, -1, 101, 1.5, "2", True, []])
def test_bad_parallelism(value: Any) -> None:
    (message,) = messages(document({}, settings={"max_steps_parallelism": value}))
    assert "max_steps_parallelism must be a whole number from 1 to 100" in message


def test_a_circle_is_told_with_its_titles() -> None:
    source = document({"A": {"after": ["C"]}, "B": {"after": ["A"]}, "C": {"after": ["B"]}, "D": {}})
    (message,) = messages(source)
    assert "circle" in message
    assert all(f"'{title}'" in message for title in "ABC")
    assert "'D'" not in message
    (message,) = messages(document({"A": {"after": ["A"]}}))
    assert "'A' > 'A'" in message


def test_two_steps_of_one_uuid() -> None:
    source = document({"A": {}, "B": {}})
    source["steps"][uuid_of("B")]["uuid"] = uuid_of("A")
    found = messages(source)
    assert any("another step has the same uuid" in message and "'B'" in message for message in found)


def test_a_key_that_is_there_twice_is_not_lost_silently() -> None:
    step = json.dumps({"uuid": uuid_of("A"), "title": "A", "file_path": "a.py"})
    twice = f'"{uuid_of("A")}": {step}, "{uuid_of("A")}": {step}'
    text = f'{{"uuid": "{uuid_of("p")}", "name": "p", "steps": {{{twice}}}}}'
    assert messages(text) == [f"the name '{uuid_of('A')}' appears twice in one object"]


def test_every_problem_is_reported_at_once() -> None:
    source = document({"A": {"file_path": "../a.py", "parameters": 1}, "B": {"after": ["nobody"]}}, name="")
    with pytest.raises(InvalidDefinition) as raised:
        parse(source)
    assert len(raised.value.problems) == 4
    assert raised.value.status == 422


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", "not JSON"),
        ("[]", "must be a JSON object"),
        ('"x"', "must be a JSON object"),
        ('{"a": NaN}', "NaN is not a JSON number"),
        ("[" * 100_000, "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ('{"name": "a\\u0000b"}', "NUL"),
        ('{"name": "\\ud800"}', "surrogate"),
        ('{"\\u0000": 1}', "NUL"),
        ('{"x": 1e999}', "inf is not a JSON number"),
        ("1" * 5000, "not JSON"),
        (" " * (4 * 1024 * 1024 + 1), "larger than"),
    ],
)
def test_what_is_no_definition_is_refused(source: str | bytes, expected: str) -> None:
    assert any(expected in message for message in messages(source)), messages(source)


@pytest.mark.parametrize(
    ("service", "expected"),
    [
        (5, "must be a JSON object"),
        ({"name": "other"}, "its name differs"),
        ({"ports": [0]}, "ports must be a list of whole numbers 1 to 65535"),
        ({"ports": [True]}, "ports must be a list"),
        ({"scope": ["sometimes"]}, "scope must be a list of interactive or noninteractive"),
        ({"binds": {"/a": 5}}, "binds must be a JSON object of text to text"),
        ({"env_variables": []}, ""),
        ({"env_variables": ["A=1"]}, "env_variables must be a JSON object"),
        ({"exposed": "yes"}, "exposed must be true or false"),
        ({"order": "first"}, "order must be a whole number"),
        ({"image": 1}, "image must be text"),
    ],
)
def test_a_wrong_service_is_named(service: Any, expected: str) -> None:
    found = messages(document({}, services={"db": service}))
    if not expected:
        assert found == []  # an empty list where an object belongs: written by old editors, means none
        return
    assert len(found) == 1, found
    assert found[0].startswith("service 'db'")
    assert expected in found[0]


@pytest.mark.parametrize("opening", ["[", '{"x": '])
def test_what_lies_too_deep_is_refused(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    for depth, fits in ((90, True), (200, False), (600, False)):
        unknown = json.loads(opening * depth + "0" + closing * depth)
        source = document({}, editor=unknown)
        for form in (source, json.dumps(source)):
            assert (check(form) == []) is fits, depth


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)  # shared, slow machines
@given(data=st.data())
def test_no_document_breaks_the_reader(data: st.DataObject) -> None:
    """Whatever stands in any place, the answer is a definition or problems, never another error."""
    source = copy.deepcopy(json.loads(EXAMPLE.read_text()))
    for _ in range(data.draw(st.integers(1, 3))):
        owner: Any = source
        while True:
            places = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
            if not places:
                break
            place = data.draw(st.sampled_from(places))
            inner = owner[place]
            if isinstance(inner, dict | list) and inner and data.draw(st.booleans()):
                owner = inner
                continue
            owner[place] = data.draw(JSON)
            break
    for problem in check(source):
        assert problem.message
