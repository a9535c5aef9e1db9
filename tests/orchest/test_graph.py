"""A pipeline's steps as a drawing."""

from orchest.definition import parse
from orchest.web.graph import HEIGHT, WIDTH, depths, draw, rows_of, stretched
from tests.orchest.building import document


def test_each_step_stands_right_of_all_it_waits_for() -> None:
    graph = {"a": (), "b": ("a",), "c": ("a", "b"), "d": ()}
    assert depths(graph) == {"a": 0, "b": 1, "c": 2, "d": 0}


def test_a_long_line_has_a_place_beside_the_steps_it_passes() -> None:
    graph = {"a": (), "b": ("a",), "c": ("a", "b")}
    columns = depths(graph)
    full, places = stretched(graph, columns)
    (place,) = places["a", "c"]
    rows = rows_of(full, columns)
    assert columns[place] == columns["b"]
    assert rows[place] != rows["b"]


def test_no_two_boxes_overlap() -> None:
    steps = {f"s{n}": {"after": [f"s{m}" for m in range(n) if (n + m) % 3 == 0]} for n in range(20)}
    drawing = draw(parse(document(steps)), {})
    assert drawing is not None
    boxes = [(node.x, node.y) for node in drawing.nodes]
    for index, (x, y) in enumerate(boxes):
        assert x + WIDTH <= drawing.width
        assert y + HEIGHT <= drawing.height
        assert not any(abs(x - u) < WIDTH and abs(y - v) < HEIGHT for u, v in boxes[index + 1 :])
    assert len(drawing.lines) == sum(len(step["after"]) for step in steps.values())


def test_nothing_and_too_much_are_not_drawn() -> None:
    assert draw(parse(document({}))) is None
    assert draw(parse(document({f"s{n}": {} for n in range(61)}))) is None
