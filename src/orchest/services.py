"""Services of a pipeline definition, as processes: their command, variables, ports, and when they are ready.

A definition of the original describes containers. Here a service is a process of this machine:

- ``command`` and ``args`` are split as a shell would, but no shell runs them; ``$NAME`` and ``${NAME}`` are
  replaced by the service's own variables.
- ``image`` matters only as ``environment@<uuid>``: then the programs of that environment come first.
- Each of ``ports`` gets a free port of the loopback interface, which the service finds in its variables:
  ``ORCHEST_PORT_<port>``, and ``PORT`` for the first. What runs beside it finds it as Kubernetes has it:
  ``<NAME>_SERVICE_HOST``, ``<NAME>_SERVICE_PORT`` and ``<NAME>_SERVICE_PORT_<port>``.
- ``binds`` are not carried out: the service works in the project's directory.
"""

import os
import re
import shlex
import socket
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from string import Template

from orchest.children import in_virtual_environment, inherited_variables
from orchest.definition import Definition, Service
from orchest.executor.commands import RESERVED

HOST = "127.0.0.1"
IMAGE = "environment@"
CONNECT_SECONDS = 0.5

Ports = Mapping[str, int]
"""The ports a definition names, as text, each with the one the service really listens on."""


class ServiceFailed(Exception):
    """A service could not be started, or has ended; says why in a user's words."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that starting a service takes."""

    name: str
    command: tuple[str, ...]
    variables: Mapping[str, str]
    ports: Ports


def ordered(definition: Definition, names: Iterable[str]) -> list[Service]:
    """The services of these names in the order they start in."""
    return sorted((definition.services[name] for name in names), key=lambda s: (s.order, s.name))


def environment_in(image: str) -> str | None:
    """The environment a service's image names; None when it names none."""
    return image.removeprefix(IMAGE) if image.startswith(IMAGE) else None


def pick_ports(services: Iterable[Service]) -> dict[str, dict[str, int]]:
    """A free loopback port for each port of each service, all different."""
    with ExitStack() as held:  # all at once, so that none is given twice
        picked: dict[str, dict[str, int]] = {}
        for service in services:
            picked[service.name] = {}
            for port in service.ports:
                listener = held.enter_context(socket.socket())
                listener.bind((HOST, 0))
                picked[service.name][str(port)] = listener.getsockname()[1]
        return picked


def addresses(ports: Mapping[str, Ports]) -> dict[str, str]:
    """Where services are reached, as environment variables for whoever runs beside them."""
    variables: dict[str, str] = {}
    for name, of_service in ports.items():
        prefix = re.sub(r"[^A-Za-z0-9]", "_", name).upper()
        for port, real in of_service.items():
            variables.setdefault(f"{prefix}_SERVICE_HOST", HOST)
            variables.setdefault(f"{prefix}_SERVICE_PORT", str(real))
            variables[f"{prefix}_SERVICE_PORT_{port}"] = str(real)
    return variables


def prepare(
    service: Service,
    ports: Mapping[str, Ports],
    *,
    given: Mapping[str, str],
    python: Path | None,
    own: Mapping[str, str] | None = None,
) -> Prepared:
    """How a service is started. ``ports`` are those of all services, ``given`` the variables it may inherit.

    Raises:
        ServiceFailed: it has no command, or one that cannot be read.
    """
    variables = inherited_variables(os.environ if own is None else own)
    variables.setdefault("PYTHONUNBUFFERED", "1")  # otherwise a log shows nothing until the service ends
    if python is not None:
        variables = in_virtual_environment(variables, python)
    variables |= addresses(ports)
    theirs = {name: given[name] for name in service.env_variables_inherit if name in given}
    theirs |= service.env_variables
    variables |= {name: value for name, value in theirs.items() if not name.startswith(RESERVED)}
    mine = ports[service.name]
    variables |= {f"ORCHEST_PORT_{port}": str(real) for port, real in mine.items()}
    if mine:
        variables.setdefault("PORT", str(next(iter(mine.values()))))
    return Prepared(service.name, tuple(command_line(service, variables)), variables, mine)


def command_line(service: Service, variables: Mapping[str, str]) -> list[str]:
    try:
        words = shlex.split(service.command) + shlex.split(service.args)
    except ValueError as error:
        raise ServiceFailed(f"service {service.name!r}: its command cannot be read: {error}") from None
    if not words:
        raise ServiceFailed(f"service {service.name!r} has no command; only processes can be services here")
    return [Template(word).safe_substitute(variables) for word in words]


def answers(ports: Ports) -> bool:
    """Whether something takes connections on every one of the ports."""
    for real in ports.values():
        try:
            socket.create_connection((HOST, real), CONNECT_SECONDS).close()
        except OSError:
            return False
    return True
