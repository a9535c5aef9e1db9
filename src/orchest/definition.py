"""A pipeline definition: the JSON of a ``*.orchest`` file, checked and read.

`parse` answers with a frozen `Definition`, or raises `InvalidDefinition` with every problem found, each
naming the step and the place. The document itself is kept as it came (`Definition.document`), unknown keys
included, so that saving a pipeline never loses what a newer editor wrote; nothing but the typed fields is
ever used or sent anywhere.
"""

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import PurePosixPath
from typing import Any

from clarion.errors import InvalidInput
from orchest.documents import (
    Fields,
    Problem,
    decode,
    is_text,
    json_size,
    kind,
    pointer,
    port,
    repeats,
    unusable_values,
    whole,
)

EXTENSIONS = ("py", "ipynb", "r", "jl", "sh")
"""File extensions a step may have, lower case (the telemetry contract counts exactly these)."""
MAX_STEPS = 1000
MAX_PARALLELISM = 100
MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_PARAMETERS_BYTES = 64 * 1024
"""Parameters travel in one environment variable; Linux allows 128 KiB for one (MAX_ARG_STRLEN, execve(2))."""
SCOPES = ("interactive", "noninteractive")


class InvalidDefinition(InvalidInput):
    """The pipeline definition cannot be used."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(problem.message for problem in self.problems))


@dataclass(frozen=True, slots=True)
class Settings:
    """What the definition says about running it. None: not said, the platform's default holds."""

    max_steps_parallelism: int | None = None
    auto_eviction: bool = False
    data_passing_memory_size: str = "1GB"


@dataclass(frozen=True, slots=True)
class Step:
    """One step: a file to execute after the steps it is connected to."""

    uuid: str
    title: str
    file_path: str
    """Relative to the directory of the pipeline file; never leaves it."""
    environment: str = ""
    kernel_name: str = "python"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    incoming: tuple[str, ...] = ()

    @property
    def extension(self) -> str:
        return PurePosixPath(self.file_path).suffix.removeprefix(".").lower()


@dataclass(frozen=True, slots=True)
class Service:
    """A process that runs beside the pipeline. ``binds`` maps a path outside to a path inside."""

    name: str
    image: str = ""
    command: str = ""
    args: str = ""
    scope: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    binds: Mapping[str, str] = field(default_factory=dict)
    env_variables: Mapping[str, str] = field(default_factory=dict)
    env_variables_inherit: tuple[str, ...] = ()
    exposed: bool = False
    requires_authentication: bool = True
    preserve_base_path: bool = False
    order: int = 0


@dataclass(frozen=True, slots=True)
class Definition:
    """A valid pipeline definition. ``document`` is the JSON it was read from, unknown keys and all."""

    uuid: str
    name: str
    version: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    settings: Settings = Settings()
    steps: Mapping[str, Step] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def graph(self) -> dict[str, tuple[str, ...]]:
        """Each step's uuid with those it waits for, in the order of the document."""
        return {step.uuid: step.incoming for step in self.steps.values()}

    def ancestors(self, uuids: Iterable[str]) -> frozenset[str]:
        """The steps that come before any of ``uuids``, these not included unless they are reachable."""
        found: set[str] = set()
        waiting = [before for uuid in uuids for before in self.steps[uuid].incoming]
        while waiting:
            uuid = waiting.pop()
            if uuid not in found:
                found.add(uuid)
                waiting.extend(self.steps[uuid].incoming)
        return frozenset(found)

    def to_json(self) -> str:
        """The document as a pipeline file holds it."""
        return json.dumps(self.document, indent=2, ensure_ascii=False) + "\n"


def parse(source: str | bytes | Mapping[str, Any]) -> Definition:
    """Read a pipeline file's text, or its already decoded JSON. Raises `InvalidDefinition`."""
    reader = _Reader()
    text = isinstance(source, str | bytes)
    document = decode(source, reader, MAX_DOCUMENT_BYTES) if isinstance(source, str | bytes) else dict(source)
    definition = reader.definition(document, ours=text) if document is not None else None
    if reader.problems or definition is None:
        raise InvalidDefinition(reader.problems)
    return definition


def check(source: str | bytes | Mapping[str, Any]) -> list[Problem]:
    """Every problem of a definition; empty when `parse` would accept it."""
    try:
        parse(source)
    except InvalidDefinition as error:
        return list(error.problems)
    return []


class _Reader(Fields):
    """Reads a document field by field and collects what is wrong instead of stopping at the first."""

    def definition(self, document: Any, *, ours: bool) -> Definition | None:
        if not isinstance(document, dict):
            self.problem("", "the definition must be a JSON object")
            return None
        self.problems.extend(unusable_values(document))
        if self.problems:
            return None
        if not ours:  # not sooner: what lies too deep cannot be copied
            document = copy.deepcopy(document)
        steps = self._steps(document.get("steps", {}))
        services = self._services(document.get("services", {}))
        return Definition(
            uuid=self.uuid(document.get("uuid"), pointer("uuid"), "the pipeline"),
            name=self.text(document, "name", "", "the pipeline", required=True),
            version=self.text(document, "version", "", "the pipeline"),
            parameters=self._parameters(document, "", "the pipeline"),
            settings=self._settings(document.get("settings", {})),
            steps=steps,
            services=services,
            document=document,
        )

    def _parameters(self, owner: dict[str, Any], at: str, who: str) -> Mapping[str, Any]:
        value = owner.get("parameters", {})
        path = at + pointer("parameters")
        if not isinstance(value, dict):
            self.problem(path, f"{who}: parameters must be a JSON object, not {kind(value)}")
            return {}
        try:
            size = json_size(value)
        except (ValueError, TypeError, RecursionError):
            self.problem(path, f"{who}: parameters must be JSON")
            return {}
        if size > MAX_PARAMETERS_BYTES:
            self.problem(path, f"{who}: parameters are larger than {MAX_PARAMETERS_BYTES} bytes")
        return value

    def _settings(self, value: Any) -> Settings:
        at, who = pointer("settings"), "the pipeline's settings"
        if not isinstance(value, dict):
            self.problem(at, f"{who} must be a JSON object, not {kind(value)}")
            return Settings()
        parallelism = value.get("max_steps_parallelism")
        if parallelism is not None and not whole(parallelism, 1, MAX_PARALLELISM):
            self.problem(
                at + pointer("max_steps_parallelism"),
                f"{who}: max_steps_parallelism must be a whole number from 1 to {MAX_PARALLELISM}",
            )
            parallelism = None
        return Settings(
            max_steps_parallelism=parallelism,
            auto_eviction=self.flag(value, "auto_eviction", at, who, False),
            data_passing_memory_size=self.text(value, "data_passing_memory_size", at, who) or "1GB",
        )

    def _steps(self, value: Any) -> dict[str, Step]:
        at = pointer("steps")
        if not isinstance(value, dict):
            self.problem(at, f"steps must be a JSON object of uuid to step, not {kind(value)}")
            return {}
        if len(value) > MAX_STEPS:
            self.problem(at, f"a pipeline may have at most {MAX_STEPS} steps, this one has {len(value)}")
            return {}
        steps: dict[str, Step] = {}
        for key, item in value.items():
            step = self._step(key, item, at + pointer(key))
            if step is not None and step.uuid.lower() in {uuid.lower() for uuid in steps}:
                self.problem(at + pointer(key, "uuid"), f"{_called(step)}: another step has the same uuid")
            elif step is not None:
                steps[step.uuid] = step
        self._connections(steps)
        return steps

    def _step(self, key: str, value: Any, at: str) -> Step | None:
        if not isinstance(value, dict):
            self.problem(at, f"step ({key}) must be a JSON object, not {kind(value)}")
            return None
        title = value.get("title")
        who = f"step '{title}' ({key})" if isinstance(title, str) and title else f"step ({key})"
        uuid = self.uuid(value.get("uuid", key), at + pointer("uuid"), who)
        if uuid and uuid != key:
            self.problem(
                at + pointer("uuid"), f"{who}: its uuid {uuid} differs from the key it is filed under"
            )
        return Step(
            uuid=uuid or key,
            title=self.text(value, "title", at, who),
            file_path=self._file_path(value, at, who),
            environment=self.text(value, "environment", at, who),
            kernel_name=self._kernel(value.get("kernel"), at, who),
            parameters=self._parameters(value, at, who),
            incoming=self._incoming(value.get("incoming_connections", []), at, who),
        )

    def _kernel(self, value: Any, at: str, who: str) -> str:
        if value is None:
            return "python"
        if not isinstance(value, dict):
            self.problem(at + pointer("kernel"), f"{who}: kernel must be a JSON object, not {kind(value)}")
            return "python"
        return self.text(value, "name", at + pointer("kernel"), f"{who}: kernel") or "python"

    def _file_path(self, value: dict[str, Any], at: str, who: str) -> str:
        text = self.text(value, "file_path", at, who, required=True)
        if not text:
            return ""
        path, where = PurePosixPath(text), at + pointer("file_path")
        if path.is_absolute() or "\\" in text:
            self.problem(
                where, f"{who}: file_path {text!r} must be relative to the pipeline's directory, with /"
            )
        elif ".." in path.parts:
            self.problem(where, f"{who}: file_path {text!r} leaves the project ('..' is not allowed)")
        elif path.suffix.removeprefix(".").lower() not in EXTENSIONS:
            allowed = ", ".join(f".{extension}" for extension in EXTENSIONS)
            self.problem(where, f"{who}: file_path {text!r} has an unknown extension; known are {allowed}")
        return text

    def _incoming(self, value: Any, at: str, who: str) -> tuple[str, ...]:
        path = at + pointer("incoming_connections")
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.problem(path, f"{who}: incoming_connections must be a list of step uuids")
            return ()
        if repeats(value):
            self.problem(path, f"{who}: an incoming connection is listed twice")
        return tuple(dict.fromkeys(value))

    def _connections(self, steps: dict[str, Step]) -> None:
        known = True
        for step in steps.values():
            for index, before in enumerate(step.incoming):
                if before not in steps:
                    known = False
                    path = pointer("steps", step.uuid, "incoming_connections", index)
                    self.problem(path, f"{_called(step)}: incoming connection {before} does not exist")
        if not known:
            return
        try:
            TopologicalSorter({step.uuid: step.incoming for step in steps.values()}).prepare()
        except CycleError as error:
            titles = " > ".join(f"'{steps[uuid].title or uuid}'" for uuid in error.args[1])
            self.problem(pointer("steps"), f"the steps wait for each other in a circle: {titles}")

    def _services(self, value: Any) -> dict[str, Service]:
        at = pointer("services")
        if not isinstance(value, dict):
            self.problem(at, f"services must be a JSON object of name to service, not {kind(value)}")
            return {}
        services: dict[str, Service] = {}
        for name, item in value.items():
            if isinstance(item, dict):
                services[name] = self._service(name, item, at + pointer(name))
            else:
                self.problem(at + pointer(name), f"service '{name}' must be a JSON object, not {kind(item)}")
        return services

    def _service(self, name: str, value: dict[str, Any], at: str) -> Service:
        who = f"service '{name}'"
        if value.get("name", name) != name:
            self.problem(at + pointer("name"), f"{who}: its name differs from the key it is filed under")
        order = value.get("order", 0)
        if not whole(order, -(2**31), 2**31 - 1):
            self.problem(at + pointer("order"), f"{who}: order must be a whole number")
        return Service(
            name=name,
            image=self.text(value, "image", at, who),
            command=self.text(value, "command", at, who),
            args=self.text(value, "args", at, who),
            scope=self.list(
                value, "scope", at, who, f"of {' or '.join(SCOPES)}", lambda item: item in SCOPES
            ),
            ports=self.list(value, "ports", at, who, "of whole numbers 1 to 65535", port),
            binds=self.texts(value, "binds", at, who),
            env_variables=self.texts(value, "env_variables", at, who),
            env_variables_inherit=self.list(value, "env_variables_inherit", at, who, "of names", is_text),
            exposed=self.flag(value, "exposed", at, who, False),
            requires_authentication=self.flag(value, "requires_authentication", at, who, True),
            preserve_base_path=self.flag(value, "preserve_base_path", at, who, False),
            order=order if isinstance(order, int) else 0,
        )


def _called(step: Step) -> str:
    return f"step '{step.title}' ({step.uuid})" if step.title else f"step ({step.uuid})"
