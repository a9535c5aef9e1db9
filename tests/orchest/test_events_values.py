"""Pure parts of events: what is redacted, the kind of a schedule, changes and their counts."""

from typing import Any

import pytest

from orchest.events import ChangedObject, ChangeType, change, variable_changes
from orchest.events.changes import count_changes
from orchest.events.redaction import looks_secret, marked_parameters, redact
from orchest.events.schedules import schedule_kind


@pytest.mark.parametrize(
    "name",
    [
        "password",
        "PASSWORD",
        "dbPassword",
        "db_passwd",
        "passphrase",
        "pwd",
        "secret",
        "client_secret",
        "token",
        "authToken",
        "access_token",
        "api_key",
        "apiKey",
        "API-KEY",
        "aws_access_key_id",
        "private_key",
        "account_key",
        "credentials",
        "cookie",
        "auth",
        "authorization",
        "dsn",
        "connection_string",
        "connectionUrl",
        "bearer",
        "pin",
        "otp",
        "db_pass",
        "pass",
        "access_tokens",
    ],
)
def test_a_name_that_promises_a_secret(name: str) -> None:
    assert looks_secret(name)
    assert redact({name: "x"}) == {name: "[redacted]"}


@pytest.mark.parametrize(
    "name",
    [
        "rows",
        "name",
        "path",
        "author",
        "authors",
        "max_tokens",
        "tokenizer",
        "n_tokens",
        "high_pass",
        "bypass",
        "compass",
        "keys",
        "monkey",
        "keyboard",
        "primary_key",
        "epochs",
        "learning_rate",
        "spinner",
        "mapping",
        "passes",
    ],
)
def test_a_name_that_does_not(name: str) -> None:
    assert not looks_secret(name)


@pytest.mark.parametrize(
    "value",
    [
        "postgresql://admin:hunter2@db.example/x",
        "-----BEGIN RSA PRIVATE KEY-----\nMII",
        "-----BEGIN PRIVATE KEY-----",
        "ghp_0123456789abcdefghij",
        "sk-proj-0123456789abcdef",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.sig",
        "Bearer 0123456789abcdef",
    ],
)
def test_a_value_with_the_form_of_a_secret(value: str) -> None:
    assert redact({"x": value, "y": [{"z": value}]}) == {"x": "[redacted]", "y": [{"z": "[redacted]"}]}


def test_what_is_not_secret_stays() -> None:
    values: dict[str, Any] = {"a": 1, "b": [True, None, "https://example.org/a?b=c"], "c": {"d": 2.5}}
    assert redact(values) == values


def test_marked_and_nested_names() -> None:
    marked = marked_parameters({"settings": {"secret_parameters": ["m", 3]}})
    assert redact({"m": 1, "n": {"m": {"o": 1}, "secret": [1]}}, marked) == {
        "m": "[redacted]",
        "n": {"m": "[redacted]", "secret": "[redacted]"},
    }


@pytest.mark.parametrize("definition", [{}, {"settings": None}, {"settings": {"secret_parameters": "m"}}])
def test_nothing_marked(definition: dict[str, Any]) -> None:
    assert marked_parameters(definition) == frozenset()


def test_depth_is_bounded() -> None:
    value: Any = "deep"
    for _ in range(200):
        value = {"x": value}
    assert "deep" not in str(redact({"x": value}))


@pytest.mark.parametrize(
    ("schedule", "kind"),
    [
        ("@hourly", "hourly"),
        ("@daily", "daily"),
        ("@midnight", "daily"),
        ("@weekly", "weekly"),
        ("@monthly", "monthly"),
        ("@yearly", "other"),
        ("0 4 1 * 1", "other"),
        ("0 4 1,15 * *", "other"),
        ("* * * * *", "sub-hourly"),
        ("*/15 * * * *", "sub-hourly"),
        ("0,30 * * * *", "sub-hourly"),
        ("* * * * * *", "sub-hourly"),
        ("*/2 0 4 * * *", "sub-hourly"),
        ("5 * * * *", "hourly"),
        ("5 */2 * * *", "hourly"),
        ("5 4 * * *", "daily"),
        ("0 5 4 * * *", "daily"),
        ("5 4 ? * *", "daily"),
        ("5 4 * * MON", "weekly"),
        ("5 4 1 * *", "monthly"),
        ("5 4 L * *", "monthly"),
        ("5 4 * * 1-5", "other"),
        ("5 4,6 * * *", "other"),
        ("5 4 1 1 *", "other"),
        ("nonsense", "other"),
        ("", "other"),
    ],
)
def test_the_kind_of_a_schedule(schedule: str, kind: str) -> None:
    assert schedule_kind(schedule) == kind


def test_a_change_is_created_updated_deleted_or_none() -> None:
    assert change(ChangedObject.NAME, "a", "a") == []
    assert change(ChangedObject.NAME, "a", "b")[0]["type"] == "UPDATED"
    assert change(ChangedObject.SCHEDULE, new="x") == [
        {"type": "CREATED", "changed_object": "SCHEDULE", "new_value": "x"}
    ]
    assert change(ChangedObject.SCHEDULE, "x")[0]["type"] == "DELETED"
    assert change(ChangedObject.DEFINITION) == [{"type": "UPDATED", "changed_object": "DEFINITION"}]


def test_what_changes_and_how_is_one_of_a_list() -> None:
    assert [one.value for one in ChangedObject] == [one.name for one in ChangedObject]
    assert [one.value for one in ChangeType] == ["CREATED", "UPDATED", "DELETED"]


def test_of_variables_only_those_that_changed_are_named() -> None:
    made = variable_changes({"KEPT": "1", "SET": "1", "GONE": "1"}, {"KEPT": "1", "SET": "2", "NEW": "1"})
    assert [(one["type"], *one.get("old_value", {}), *one.get("new_value", {})) for one in made] == [
        ("DELETED", "GONE"),
        ("CREATED", "NEW"),
        ("UPDATED", "SET", "SET"),
    ]


def test_changes_are_counted_by_object_and_type() -> None:
    changes = (
        change(ChangedObject.NAME, 1, 2) + change(ChangedObject.NAME, 2, 3) + change(ChangedObject.PATH, 1)
    )
    assert count_changes(changes) == {"NAME": {"UPDATED": 2}, "PATH": {"DELETED": 1}}
