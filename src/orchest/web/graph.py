"""A pipeline's steps as a drawing: where each stands, and the lines between them. Pure.

A step stands in the column of its depth (the longest way to it), so that every line leads to the right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter

from orchest.definition import Definition

WIDTH, HEIGHT = 148, 44
GAP_X, GAP_Y = 44, 18
MARGIN = 2
MAX_STEPS = 60
"""Beyond it a drawing says less than the table below it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A step: its box's corner, what is written in it, and its state as a class name."""

    x: int
    y: int
    title: str
    file: str
    status: str


@dataclass(frozen=True, slots=True)
class Drawing:
    """Boxes and lines; ``lines`` are SVG paths."""

    width: int
    height: int
    nodes: tuple[Node, ...]
    lines: tuple[str, ...]


def depths(graph: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """How many steps lie before each on the longest way to it."""
    found: dict[str, int] = {}
    for uuid in TopologicalSorter(graph).static_order():
        found[uuid] = 1 + max((found[before] for before in graph[uuid]), default=-1)
    return found


def stretched(
    graph: Mapping[str, tuple[str, ...]], columns: dict[str, int]
) -> tuple[dict[str, tuple[str, ...]], dict[tuple[str, str], list[str]]]:
    """``graph`` with a place kept in every column that a long line crosses, and those places by line.

    So a line has room beside the steps it passes, and none seems to end where it only goes by.
    """
    full: dict[str, tuple[str, ...]] = {}
    places: dict[tuple[str, str], list[str]] = {}
    for uuid, befores in graph.items():
        last = []
        for before in befores:
            crossed = [f"{before}>{uuid}>{n}" for n in range(columns[before] + 1, columns[uuid])]
            for name, previous in zip(crossed, [before, *crossed], strict=False):
                full[name] = (previous,)
                columns[name] = columns[previous] + 1
            places[before, uuid] = crossed
            last.append(crossed[-1] if crossed else before)
        full[uuid] = tuple(last)
    return full, places


def rows_of(graph: Mapping[str, tuple[str, ...]], columns: Mapping[str, int]) -> dict[str, int]:
    """The row of each in its column: those with the same predecessors stay together."""
    rows: dict[str, int] = {}

    def weight(uuid: str) -> float:
        before = [rows[one] for one in graph[uuid]]
        return sum(before) / len(before) if before else 0.0

    for column in range(max(columns.values(), default=-1) + 1):
        members = [uuid for uuid in graph if columns[uuid] == column]
        for row, uuid in enumerate(sorted(members, key=weight)):
            rows[uuid] = row
    return rows


def draw(definition: Definition, statuses: Mapping[str, str] | None = None) -> Drawing | None:
    """The drawing of a pipeline; None if it has no steps, or too many to be read."""
    if not 0 < len(definition.steps) <= MAX_STEPS:
        return None
    graph = definition.graph()
    columns = depths(graph)
    full, places = stretched(graph, columns)
    rows = rows_of(full, columns)
    at = {
        uuid: (MARGIN + columns[uuid] * (WIDTH + GAP_X), MARGIN + rows[uuid] * (HEIGHT + GAP_Y))
        for uuid in full
    }
    nodes = [
        Node(
            *at[step.uuid], step.title or step.file_path, step.file_path, (statuses or {}).get(step.uuid, "")
        )
        for step in definition.steps.values()
    ]
    return Drawing(
        width=max(x for x, _ in at.values()) + WIDTH + MARGIN,
        height=max(y for _, y in at.values()) + HEIGHT + MARGIN,
        nodes=tuple(nodes),
        lines=tuple(
            line([at[before], *(at[place] for place in crossed), at[uuid]])
            for (before, uuid), crossed in places.items()
        ),
    )


def line(points: Sequence[tuple[int, int]]) -> str:
    """A curve from the right side of the first box to the left side of the last, straight across others."""
    x, y = points[0][0] + WIDTH, points[0][1] + HEIGHT // 2
    path = f"M{x} {y}"
    for index, (left, top) in enumerate(points[1:], 2):
        middle, end = (x + left) // 2, top + HEIGHT // 2
        path += f" C{middle} {y} {middle} {end} {left} {end}"
        x, y = left, end
        if index < len(points):
            x += WIDTH
            path += f" H{x}"
    return path
