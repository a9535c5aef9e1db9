"""How a service of a definition becomes a process: command, variables, ports."""

import socket
from pathlib import Path
from typing import Any

import pytest

from orchest import services
from orchest.definition import Definition, Service
from orchest.services import ServiceFailed

PORTS = {"my-db": {"5432": 41001, "80": 41002}, "web": {"8080": 41003}, "idle": {}}


def prepared(service: Service, **more: Any) -> services.Prepared:
    own = {"PATH": "/bin", "HOME": "/home/me", "CLARION_DATABASE_URL": "postgresql://secret"}
    given = more.pop("given", {})
    return services.prepare(service, PORTS, given=given, python=more.pop("python", None), own=own)


def test_the_command_is_split_and_its_variables_are_filled_in() -> None:
    service = Service("web", command="python3 -m http.server", args="--bind '$HOST_NAME' ${PORT} $UNKNOWN")
    service = Service(**{**fields(service), "env_variables": {"HOST_NAME": "a b"}})
    assert prepared(service).command == (
        "python3",
        "-m",
        "http.server",
        "--bind",
        "a b",
        "41003",
        "$UNKNOWN",
    )


def fields(service: Service) -> dict[str, Any]:
    return {name: getattr(service, name) for name in Service.__dataclass_fields__}


def test_no_shell_reads_the_command() -> None:
    assert prepared(Service("web", command="echo hello; rm -rf x")).command == (
        "echo",
        "hello;",
        "rm",
        "-rf",
        "x",
    )


@pytest.mark.parametrize(
    ("command", "what"), [("", "has no command"), ("'", "its command cannot be read: No closing quotation")]
)
def test_a_command_that_is_none_is_explained(command: str, what: str) -> None:
    with pytest.raises(ServiceFailed, match=f"service 'web'.*{what}"):
        prepared(Service("web", command=command))


def test_ports_are_found_in_the_variables() -> None:
    variables = prepared(Service("my-db", command="x")).variables
    assert (variables["ORCHEST_PORT_5432"], variables["ORCHEST_PORT_80"]) == ("41001", "41002")
    assert variables["PORT"] == "41001"
    assert prepared(Service("my-db", command="x")).ports == {"5432": 41001, "80": 41002}


def test_others_are_found_as_kubernetes_has_it() -> None:
    assert services.addresses(PORTS) == {
        "MY_DB_SERVICE_HOST": "127.0.0.1",
        "MY_DB_SERVICE_PORT": "41001",
        "MY_DB_SERVICE_PORT_5432": "41001",
        "MY_DB_SERVICE_PORT_80": "41002",
        "WEB_SERVICE_HOST": "127.0.0.1",
        "WEB_SERVICE_PORT": "41003",
        "WEB_SERVICE_PORT_8080": "41003",
    }
    assert prepared(Service("idle", command="x")).variables["WEB_SERVICE_PORT"] == "41003"


def test_a_service_inherits_what_it_names_and_its_own_values_win() -> None:
    service = Service(
        "web",
        command="x",
        env_variables={"A": "own", "PORT": "9", "ORCHEST_STEP_MARK": "forged"},
        env_variables_inherit=("A", "B", "ORCHEST_PORT_8080", "MISSING"),
    )
    variables = prepared(
        service, given={"A": "project", "B": "project", "C": "project", "ORCHEST_PORT_8080": "1"}
    ).variables
    assert (variables["A"], variables["B"], variables["PORT"]) == ("own", "project", "9")
    assert variables["ORCHEST_PORT_8080"] == "41003"
    assert not {"C", "MISSING", "ORCHEST_STEP_MARK"} & variables.keys()


def test_a_service_sees_nothing_of_the_platforms_own_variables() -> None:
    variables = prepared(Service("web", command="x")).variables
    assert "CLARION_DATABASE_URL" not in variables
    assert variables["HOME"] == "/home/me"


def test_the_programs_of_its_environment_come_first() -> None:
    variables = prepared(Service("web", command="x"), python=Path("/envs/e/1/venv/bin/python")).variables
    assert variables["PATH"] == "/envs/e/1/venv/bin:/bin"
    assert variables["VIRTUAL_ENV"] == "/envs/e/1/venv"


@pytest.mark.parametrize(
    ("image", "uuid"), [("environment@abc", "abc"), ("redis:7", None), ("", None), ("my/environment@x", None)]
)
def test_an_image_names_an_environment_or_nothing(image: str, uuid: str | None) -> None:
    assert services.environment_in(image) == uuid


def test_services_start_in_their_order() -> None:
    definition = Definition(
        "u", "p", services={n: Service(n, order=o) for n, o in [("c", 1), ("b", 2), ("a", 2), ("d", 0)]}
    )
    assert [s.name for s in services.ordered(definition, ["a", "b", "c"])] == ["c", "a", "b"]


def test_ports_are_free_and_all_different() -> None:
    many = [Service(str(n), ports=(80, 81)) for n in range(20)]
    picked = services.pick_ports(many)
    reals = [real for ports in picked.values() for real in ports.values()]
    assert len(set(reals)) == 40
    for real in reals:
        with socket.socket() as listener:
            listener.bind((services.HOST, real))


def test_a_service_answers_when_every_port_does() -> None:
    with socket.create_server((services.HOST, 0)) as one, socket.socket() as closed:
        closed.bind((services.HOST, 0))  # bound and not listening: nobody else gets it meanwhile
        port, other = one.getsockname()[1], closed.getsockname()[1]
        assert services.answers({"80": port})
        assert not services.answers({"80": port, "81": other})
