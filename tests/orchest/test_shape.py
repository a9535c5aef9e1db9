from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from orchest.definition import Definition, Service, Step, parse
from orchest.shape import shape_of

from .building import document


def test_counts() -> None:
    source = document(
        {
            "A": {"environment": "one", "parameters": {"x": 1, "y": 2}},
            "B": {"environment": "one", "file_path": "b.ipynb", "after": ["A"]},
            "C": {"environment": "two", "file_path": "c.sh", "after": ["A", "B"], "parameters": {"z": 0}},
            "D": {"file_path": "d.R"},
        },
        parameters={"k": 5},
        services={"db": {"binds": {"/a": "/b", "/c": "/d"}}, "web": {}},
    )
    assert shape_of(parse(source)).as_dict() == {
        "pipeline_parameters_count": 1,
        "step_count": 4,
        "unique_environments_count": 2,
        "step_parameters_count": 3,
        "step_file_extension_count": {"py": 1, "ipynb": 1, "r": 1, "jl": 0, "sh": 1, "other": 0},
        "services_count": 2,
        "binds_count": 2,
        "max_depth": 3,
        "edge_count": 3,
    }


def test_an_empty_pipeline() -> None:
    shape = shape_of(parse(document({})))
    assert (shape.step_count, shape.max_depth, shape.edge_count) == (0, 0, 0)


def test_an_unknown_extension_is_only_counted() -> None:
    step = Step("u", "t", "secret-plan.customer_name")
    assert shape_of(Definition("u", "n", steps={"u": step})).step_file_extension_count["other"] == 1


NAMES = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0/."), min_size=1, max_size=6)
EXTENSION = st.sampled_from(["py", "ipynb", "r", "jl", "sh", "R", "exe", ""])


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    uuids = draw(st.lists(NAMES, unique=True, max_size=6))
    steps = {}
    for number, uuid in enumerate(uuids):
        extension = draw(EXTENSION)
        steps[uuid] = Step(
            uuid,
            draw(NAMES),
            draw(NAMES) + ("." + extension if extension else ""),
            draw(st.sampled_from(["", "one", "two", "three"])),
            draw(NAMES),
            draw(st.dictionaries(NAMES, NAMES, max_size=3)),
            tuple(before for before in uuids[:number] if draw(st.booleans())),
        )
    texts = st.dictionaries(NAMES, NAMES, max_size=3)
    services = {
        name: Service(name, draw(NAMES), binds=draw(texts)) for name in draw(st.sets(NAMES, max_size=3))
    }
    return Definition(draw(NAMES), draw(NAMES), parameters=draw(texts), steps=steps, services=services)


def renamed(definition: Definition, name: Any) -> Definition:
    """Every text a user could have written replaced, one to one; what kind of file it is stays."""

    def file(step: Step) -> str:
        return name(step.file_path).replace(".", "-") + (f".{step.extension}" if step.extension else "")

    def texts(old: Any) -> dict[str, Any]:
        return {name(key): name(value) for key, value in old.items()}

    return Definition(
        uuid=name(definition.uuid),
        name=name(definition.name),
        version=name(definition.version),
        parameters=texts(definition.parameters),
        steps={
            name(step.uuid): Step(
                name(step.uuid),
                name(step.title),
                file(step),
                name(step.environment) if step.environment else "",
                name(step.kernel_name),
                texts(step.parameters),
                tuple(map(name, step.incoming)),
            )
            for step in definition.steps.values()
        },
        services={
            name(s.name): Service(name(s.name), name(s.image), binds=texts(s.binds))
            for s in definition.services.values()
        },
        document={name("unknown"): name("value")},
    )


@settings(deadline=None)  # shared, slow machines
@given(definitions(), st.text(max_size=5))
def test_the_shape_knows_no_text(definition: Definition, salt: str) -> None:
    names: dict[str, str] = {}

    def name(old: str) -> str:
        return names.setdefault(old, f"{salt}{len(names)}")

    assert shape_of(renamed(definition, name)) == shape_of(definition)


@settings(deadline=None)  # shared, slow machines
@given(definitions())
def test_the_shape_is_numbers_only(definition: Definition) -> None:
    for value in shape_of(definition).as_dict().values():
        assert all(type(count) is int for count in (value.values() if isinstance(value, dict) else [value]))
