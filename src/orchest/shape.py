"""The shape of a pipeline definition: counts, and nothing that a user wrote.

This is what telemetry may know of a definition (an allow-list; see the contract's "pipeline-definition
shape"). Every field is a number, so there is no place where a name, a path or a value could travel.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import TopologicalSorter

from orchest.definition import EXTENSIONS, Definition

OTHER = "other"


@dataclass(frozen=True, slots=True)
class Shape:
    """Counts of one definition. ``max_depth`` is the number of steps on the longest path."""

    pipeline_parameters_count: int
    step_count: int
    unique_environments_count: int
    step_parameters_count: int
    step_file_extension_count: Mapping[str, int]
    """Keys are exactly `EXTENSIONS` and ``other``."""
    services_count: int
    binds_count: int
    max_depth: int
    edge_count: int

    def as_dict(self) -> dict[str, int | dict[str, int]]:
        """The same as plain JSON."""
        counts: dict[str, int | dict[str, int]] = {name: getattr(self, name) for name in self.__slots__}
        return counts | {"step_file_extension_count": dict(self.step_file_extension_count)}


def shape_of(definition: Definition) -> Shape:
    """Count a definition."""
    steps = definition.steps.values()
    extensions = Counter(step.extension if step.extension in EXTENSIONS else OTHER for step in steps)
    return Shape(
        pipeline_parameters_count=len(definition.parameters),
        step_count=len(definition.steps),
        unique_environments_count=len({step.environment for step in steps if step.environment}),
        step_parameters_count=sum(len(step.parameters) for step in steps),
        step_file_extension_count={name: extensions[name] for name in (*EXTENSIONS, OTHER)},
        services_count=len(definition.services),
        binds_count=sum(len(service.binds) for service in definition.services.values()),
        max_depth=_depth(definition),
        edge_count=sum(len(step.incoming) for step in steps),
    )


def _depth(definition: Definition) -> int:
    depths: dict[str, int] = {}
    graph = definition.graph()
    for uuid in TopologicalSorter(graph).static_order():
        depths[uuid] = 1 + max((depths[before] for before in graph[uuid]), default=0)
    return max(depths.values(), default=0)
