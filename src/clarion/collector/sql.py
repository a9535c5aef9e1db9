"""SQL that somebody wrote, made harmless before the DuckDB store runs it.

DuckDB's own parser reads it, and what it read is held to closed lists: one SELECT, known kinds of
expressions, functions that neither touch anything outside nor let a value grow. Then every table in it is
renamed, and the one that ``events`` became is defined as the events of one project and span. What runs is
written anew from the tree that was checked, so there is no second reading of the text, and no name in it can
reach a table of ours.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import duckdb

from clarion.errors import InvalidInput

MOST_CHARACTERS: Final = 8000
MOST_ROWS: Final = 1000
"""Rows of an answer; there may be more, which is said."""
SECONDS: Final = 5.0
"""Longest a statement may run."""
MOST_BYTES: Final = 512 * 1024**2
"""How much more memory the database may take while a statement runs."""

COLUMNS: Final = (
    "key",
    "event",
    "installation",
    "occurred_at",
    "received_at",
    "library",
    "library_version",
    "app_version",
    "schema_version",
    "schema_hash",
    "properties",
    "findings",
)
"""What the table ``events`` has."""

PREFIX: Final = "asked_"
_EVENTS: Final = f"{PREFIX}events"

_NODES: Final = frozenset({"SELECT_NODE", "SET_OPERATION_NODE"})
_SOURCES: Final = frozenset({"BASE_TABLE", "SUBQUERY", "JOIN", "EMPTY", "EXPRESSION_LIST"})
_MODIFIERS: Final = frozenset(
    {"ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"}
)
_ORDERS: Final = frozenset({"ORDER_DEFAULT", "ASCENDING", "DESCENDING"})
_KINDS: Final = _NODES | _SOURCES | _MODIFIERS | _ORDERS | {"DECIMAL_TYPE_INFO"}
_EXPRESSIONS: Final = frozenset(
    """BETWEEN CASE CAST COLLATE COLUMN_REF COMPARISON CONJUNCTION CONSTANT FUNCTION OPERATOR STAR SUBQUERY
    TYPE WINDOW""".split()  # noqa: SIM905 -- a word list reads better as words
)
FUNCTIONS: Final = frozenset(
    """+ - * / // % ^ ** ~~ !~~ ~~~ ~~* !~~* -> ->> like_escape not_like_escape ilike_escape not_ilike_escape
    count count_star sum avg mean min max median mode quantile quantile_cont quantile_disc count_if any_value
    first last arg_min arg_max min_by max_by bool_and bool_or stddev stddev_pop stddev_samp variance var_pop
    var_samp corr approx_count_distinct approx_quantile abs ceil ceiling floor round trunc sqrt ln log log2
    log10 exp power pow sign greatest least nullif isnan isfinite lower upper length strlen substr substring
    left right trim ltrim rtrim contains starts_with ends_with prefix suffix position strpos instr split_part
    regexp_matches regexp_full_match regexp_extract date_trunc datetrunc date_part datepart date_diff datediff
    date_sub datesub year quarter month week day dayofweek dayofyear isodow hour minute second epoch epoch_ms
    dayname monthname last_day strftime time_bucket now today get_current_timestamp to_seconds to_minutes
    to_hours to_days to_weeks to_months to_years json_extract json_extract_string json_extract_path
    json_extract_path_text json_type json_exists json_value json_array_length row_number rank dense_rank
    percent_rank cume_dist ntile lag lead first_value last_value nth_value""".split()  # noqa: SIM905 -- as above
)
"""Every function that may be called. None reads or writes anything but its arguments, and none gives back
more text than it was given, but for a format: nothing here can be made to fill the memory.
"""


@dataclass(frozen=True, slots=True)
class Table:
    """An answer. ``more``: there would be further rows."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    more: bool


def harmless(text: str, events: str) -> str:
    """The statement to run for what somebody wrote; ``events`` is the SELECT that its table ``events`` is.

    It gives at most ``MOST_ROWS`` rows and one. Raises InvalidInput, which says what may not be asked.
    """
    if len(text) > MOST_CHARACTERS:
        raise InvalidInput(f"a statement may have {MOST_CHARACTERS} characters")
    try:
        text.encode()
        return _rewritten(text, events)
    except (duckdb.Error, RecursionError, UnicodeEncodeError) as error:
        raise InvalidInput("this is not a statement that can be read") from error


def _rewritten(text: str, events: str) -> str:
    with closing(duckdb.connect()) as parser:
        tree = _parsed(parser, text)
        for part in _parts(tree["statements"]):
            _check(part)
            _rename(part)
        written = str(_told(parser, "json_deserialize_sql", json.dumps(tree)))
        again = _parsed(parser, written)
    for part in _parts(again["statements"]):
        _check(part)
        if not all(name.startswith(PREFIX) for name in _names(part)):
            raise InvalidInput("the statement cannot be read in only one way")
    node = again["statements"][0]["node"]
    if any(one["type"].startswith("LIMIT") for one in node["modifiers"]):
        written = f"SELECT * FROM ({written})"  # noqa: S608 -- written from the tree that was checked
        begun = False
    else:
        begun = bool(node["cte_map"]["map"])
    ours = f"WITH {_EVENTS} AS NOT MATERIALIZED ({events})"
    whole = f"{ours}, {written.removeprefix('WITH ')}" if begun else f"{ours} {written}"
    return f"{whole} LIMIT {MOST_ROWS + 1}"


def _parsed(parser: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    tree: dict[str, Any] = json.loads(_told(parser, "json_serialize_sql", text))
    if tree["error"]:
        raise InvalidInput(f"only one SELECT may be asked: {tree['error_message']}")
    if len(tree["statements"]) != 1:
        raise InvalidInput("only one SELECT may be asked")
    return tree


def _told(parser: duckdb.DuckDBPyConnection, function: str, text: str) -> Any:
    return parser.execute(f"SELECT {function}($text)", {"text": text}).fetchall()[0][0]


def _parts(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object in a tree, whatever its depth."""
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _check(part: dict[str, Any]) -> None:
    kind = part.get("type")
    if "class" in part:
        if part["class"] not in _EXPRESSIONS:
            raise InvalidInput(f"{str(part['class']).lower()} may not be asked")
        name = part.get("function_name")
        if name is not None and (str(name).lower() not in FUNCTIONS or _placed(part)):
            raise InvalidInput(f"the function {name} may not be called")
    elif isinstance(kind, str) and kind not in _KINDS:
        raise InvalidInput(f"{kind.replace('_', ' ').lower()} may not be asked")
    if part.get("at_clause") or (kind == "BASE_TABLE" and _placed(part)):
        raise InvalidInput("there is the table events, and what the statement itself names")


def _placed(part: dict[str, Any]) -> bool:
    """Whether something is named with its schema or catalogue."""
    named = part.get("qualified_name") or {}
    path = named.get("path") or [""]
    return bool(
        len(path) > 1 or any(part.get(name) for name in ("schema", "schema_name", "catalog", "catalog_name"))
    )


def _names(part: dict[str, Any]) -> Iterator[str]:
    """The names of tables in one object of the tree: one it reads from, or those it defines."""
    if part.get("type") == "BASE_TABLE" and "class" not in part:
        yield part["table_name"]
        yield from (part.get("qualified_name") or {}).get("path", ())
    if "cte_map" in part:
        yield from (one["key"] for one in part["cte_map"]["map"])


def _rename(part: dict[str, Any]) -> None:
    if part.get("type") == "BASE_TABLE" and "class" not in part:
        name = part["table_name"]
        part["alias"] = part["alias"] or name
        part["table_name"] = f"{PREFIX}{name}"
        if "qualified_name" in part:
            part["qualified_name"] = {"path": [part["table_name"]]}
    for one in part.get("cte_map", {}).get("map", ()):
        if one["key"].lower() == "events":
            raise InvalidInput("events is the name of the table of events")
        one["key"] = f"{PREFIX}{one['key']}"
