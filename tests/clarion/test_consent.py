"""Off means off: every way of saying no, and the order in which they are asked."""

from uuid import UUID

import pytest

from clarion.consent import (
    NOTICE_VERSION,
    RUNS_OF_MACHINES,
    Stored,
    Why,
    decide,
    given_installation,
    said,
)
from clarion.errors import ConfigurationError

ON = Stored(enabled=None, notice=NOTICE_VERSION)


@pytest.mark.parametrize("value", ["1", "true", "TRUE", "yes", "on", " 1 ", "y", "maybe", "2", "disabled"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("TELEMETRY_DISABLED", Why.DISABLED),
        ("DO_NOT_TRACK", Why.DO_NOT_TRACK),
        ("TELEMETRY_DEBUG", Why.DEBUG),
        *((name, Why.MACHINE) for name in RUNS_OF_MACHINES),
    ],
)
def test_each_variable_says_no_in_every_spelling(name: str, value: str, why: Why) -> None:
    assert decide({name: value}, None, ON).why is why


@pytest.mark.parametrize("value", ["0", "false", "False", "no", "off", "", "  "])
@pytest.mark.parametrize("name", ["TELEMETRY_DISABLED", "DO_NOT_TRACK", "TELEMETRY_DEBUG", "CI"])
def test_a_no_or_an_empty_variable_objects_to_nothing(name: str, value: str) -> None:
    assert decide({name: value}, None, ON)


@pytest.mark.parametrize("value", [True, "true", 1, "yes"])
def test_the_application_s_configuration_says_no(value: object) -> None:
    assert decide({}, {"TELEMETRY_DISABLED": value}, ON).why is Why.CONFIGURATION


def test_no_configuration_is_off() -> None:
    assert decide({}, None, None).why is Why.UNCONFIGURED
    assert decide({}, {"TELEMETRY_DISABLED": False}, None).why is Why.UNCONFIGURED


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (Stored(False, NOTICE_VERSION), Why.SETTING),
        (Stored(True, None), Why.NOTICE),
        (Stored(None, NOTICE_VERSION - 1), Why.NOTICE),
        (Stored(True, NOTICE_VERSION), Why.ON),
        (Stored(None, NOTICE_VERSION), Why.ON),
    ],
)
def test_the_stored_word_and_the_notice_decide_last(stored: Stored, why: Why) -> None:
    assert decide({}, {}, stored).why is why


def test_an_explicit_no_to_disabling_says_that_a_machine_s_run_is_meant() -> None:
    assert decide({"CI": "true", "TELEMETRY_DISABLED": "0"}, None, ON)
    assert (
        decide({"CI": "true", "TELEMETRY_DISABLED": "0", "DO_NOT_TRACK": "1"}, None, ON).why
        is Why.DO_NOT_TRACK
    )


@pytest.mark.parametrize(
    "louder", [{"TELEMETRY_DISABLED": "1"}, {"DO_NOT_TRACK": "1"}, {"CI": "1"}, {"TELEMETRY_DEBUG": "1"}]
)
def test_nothing_stored_can_outvote_the_environment(louder: dict[str, str]) -> None:
    assert not decide(louder, {"TELEMETRY_DISABLED": False}, Stored(True, NOTICE_VERSION))


def test_what_is_not_set_says_nothing() -> None:
    assert [said(v) for v in (None, "", " ", True, False, 0, 1)] == [
        None,
        None,
        None,
        True,
        False,
        False,
        True,
    ]


def test_the_installation_s_id_is_a_uuid_or_nothing() -> None:
    text = "8d5f0e5c-0f5f-4c58-9d35-3a8f7c1f0b11"
    assert given_installation({}) is None
    assert given_installation({"TELEMETRY_UUID": " "}) is None
    assert given_installation({"TELEMETRY_UUID": f" {text} "}) == UUID(text)
    with pytest.raises(ConfigurationError, match="must be a UUID") as refused:
        given_installation({"TELEMETRY_UUID": "ann's laptop"})
    assert "ann" not in refused.value.message


def test_the_environment_s_id_stands_above_the_configuration_s() -> None:
    one, other = UUID(int=1), UUID(int=2)
    assert given_installation({}, {"TELEMETRY_UUID": str(one)}) == one
    assert given_installation({}, {"TELEMETRY_UUID": one}) == one
    assert given_installation({"TELEMETRY_UUID": str(other)}, {"TELEMETRY_UUID": str(one)}) == other
    for nothing in (None, "", " "):
        assert given_installation({"TELEMETRY_UUID": ""}, {"TELEMETRY_UUID": nothing}) is None
    for wrong in ("ann's laptop", 7, True, ["ann"]):
        with pytest.raises(ConfigurationError, match="configuration must be a UUID") as refused:
            given_installation({}, {"TELEMETRY_UUID": wrong})
        assert "ann" not in refused.value.message
