"""``clarion events``: what the application declares."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from clarion.cli.installation import installation
from clarion.cli.printing import AsJson, facts, print_json, say, table
from clarion.errors import InvalidInput

app = typer.Typer(help="The event types that the application (CLARION_APP) declares.", no_args_is_help=True)


@app.command("list")
def list_types(
    pattern: Annotated[str, typer.Argument(help="Only types that match, such as 'project:*'.")] = "*",
    json: AsJson = False,
) -> None:
    """List the event types."""
    from clarion.subscriptions import check_pattern, matches

    catalogue = installation().catalogue
    if pattern != "*":
        check_pattern(catalogue, pattern)
    types = [t for t in catalogue if matches(pattern, t.name)]
    if json:
        print_json([describe(t) for t in types])
        return
    rows = [(t.name, t.source, "/".join(t.scope_layers), t.description) for t in types]
    table(("TYPE", "SOURCE", "SCOPE", "DESCRIPTION"), rows, empty="no event types are declared")


@app.command("show")
def show(
    type: Annotated[str, typer.Argument(metavar="TYPE", help="Such as project:created.")],
    json: AsJson = False,
) -> None:
    """Show one event type: its fields, who sees each, and what for."""
    found = installation().catalogue[type]
    if json:
        from clarion.cli.documents import schemas

        print_json({**describe(found), "schemas": schemas_of(found, schemas)})
        return
    facts({name: value for name, value in describe(found).items() if name != "fields"})
    say()
    rows = [
        (
            one["path"],
            one["role"],
            one["type"],
            "subscribers" if one["notified"] else "",
            f"telemetry, {one['classification']}" if one["telemetry"] else "",
            one["doc"],
        )
        for one in describe(found)["fields"]
    ]
    table(("FIELD", "ROLE", "TYPE", "SEEN BY", "AND BY", "WHAT"), rows, empty="it has no fields of its own")
    now = datetime.now(UTC)
    if not found.captured:
        say("\nAn example of what subscribers see:")
        print_json(found.notification_example(now))
    say("\nAn example of what telemetry sends:")
    print_json(found.telemetry_example(now))


def schemas_of(found: Any, schemas: Any) -> Any:
    from clarion.catalogue import Catalogue

    return schemas(Catalogue([found.cls]))[found.name]


def describe(found: Any) -> dict[str, Any]:
    """An event type as plain values."""
    return {
        "type": found.name,
        "description": found.description,
        "summary": found.cls.verbs[found.verb],
        "source": found.source,
        "scope": "/".join(found.scope_layers),
        "schema_version": found.cls.schema_version,
        "fields": [
            {
                "path": ".".join(field.path),
                "role": field.role,
                "type": type_text(field.type),
                "notified": field.in_notification,
                "telemetry": field.in_telemetry,
                "classification": classified(field),
                "doc": field.declared.doc,
                "purpose": field.declared.purpose,
            }
            for field in found.fields
        ],
    }


def classified(field: Any) -> str | None:
    """The class of data that telemetry sees of a field; None if it sees nothing of it."""
    from clarion.anonymous import classification
    from clarion.catalogue import telemetry_field_schema

    return classification(telemetry_field_schema(field)).value if field.in_telemetry else None


def type_text(tp: Any) -> str:
    """A type as its author wrote it, without modules."""
    return tp.__name__ if isinstance(tp, type) and not hasattr(tp, "__args__") else short(str(tp))


def short(text: str) -> str:
    import re

    return re.sub(r"\b(?:[A-Za-z_]\w*\.)+([A-Za-z_]\w*)", r"\1", text)


@app.command("schema")
def schema(
    telemetry: Annotated[
        bool, typer.Option("--telemetry", help="The collector's allow-list: what telemetry may carry.")
    ] = False,
    typescript: Annotated[
        bool, typer.Option("--typescript", help="TypeScript types of what the browser sends.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file instead of stdout.")
    ] = None,
) -> None:
    """Print JSON Schemas (2020-12) of every type: of what subscribers see, and of what telemetry sends."""
    import json

    from clarion.cli import documents
    from clarion.registry import telemetry_document

    if telemetry and typescript:
        raise InvalidInput("give either --telemetry or --typescript")
    catalogue = installation().catalogue
    if typescript:
        text = documents.typescript(catalogue)
    else:
        made = telemetry_document(catalogue) if telemetry else documents.schemas(catalogue)
        text = json.dumps(made, indent=2, ensure_ascii=False) + "\n"
    if output is None:
        typer.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot write {output}: {error.strerror}") from error
    say(str(output))
