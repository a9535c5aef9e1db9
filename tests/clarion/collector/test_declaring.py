"""What to write so that something refused is taken: code, and never a field that could hold text."""

import ast

import pytest

from clarion.collector.declaring import declaration


@pytest.mark.parametrize(
    ("event", "path", "problem", "kind", "says"),
    [
        ("shop:closed", "", "unknown event", "", 'class ShopClosed(Captured, kind="shop:closed"'),
        ("‹redacted key› 0a1b", "", "unknown event", "", 'kind="ITS:NAME"'),
        ("a:b", "event_properties.retried", "unknown property", "boolean", "retried: Mapped[bool] = fact("),
        ("a:b", "event_properties.order.size", "unknown property", "number", "size: Mapped[int] = fact("),
        (
            "a:b",
            "event_properties.note",
            "unknown property",
            "string",
            'note: Mapped[Literal["...", "other"]]',
        ),
        (
            "a:b",
            "derived_properties.n",
            "unknown property",
            "number",
            '@measure(purpose="...")\ndef n(self) -> int:',
        ),
        (
            "a:b",
            "event_properties.‹redacted key› 0a1b",
            "unknown property",
            "number",
            "its_name: Mapped[int]",
        ),
        (
            "a:b",
            "event_properties.kind",
            "value not allowed",
            "string",
            "# event_properties.kind: list the value",
        ),
        ("a:b", "event_properties.n", "wrong type", "null", "add | None"),
        ("a:b", "event_properties.n", "wrong type", "boolean", "# event_properties.n: Mapped[bool]"),
    ],
)
def test_a_declaration_is_python_and_holds_no_text(
    event: str, path: str, problem: str, kind: str, says: str
) -> None:
    written = declaration(event, path, problem, kind)
    assert says in written
    ast.parse(written)
    assert "str]" not in written
    assert "-> str" not in written


@pytest.mark.parametrize("problem", ["missing distinct_id", "too large", "breaks maximum", "unreadable"])
def test_what_no_declaration_would_take_has_none(problem: str) -> None:
    assert declaration("a:b", "event_properties.n", problem, "number") == ""


def test_what_is_outside_the_declared_groups_has_none() -> None:
    assert declaration("a:b", "$ip", "unknown property", "string") == ""
