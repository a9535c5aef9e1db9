"""``python -m bench``: measure everything, print a table, write ``bench/latest.json``."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import delivering, fairness, latency, recording, sink
from bench.worlds import DATABASES, World, world
from clarion.engines import relax_gc

LATEST = Path(__file__).parent / "latest.json"

TARGETS: dict[str, tuple[str, float]] = {
    "record.ratio_to_raw": (">=", 0.6),
    "deliver.ratio_to_client": (">=", 0.6),
    "deliver.ratio_to_celery": (">=", 10.0),
    "latency.p50_ms": ("<=", 10.0),
    "latency.p99_ms": ("<=", 50.0),
    "fairness.ratio": ("<=", 2.0),
    "collector_batched_events_per_s": (">=", 10_000.0),
    "collector_single_requests_per_s": (">=", 1_500.0),
    "collector_single_p99_ms": ("<=", 50.0),
    "collector_batched_at_10k_p99_ms": ("<=", 50.0),
    "collector_slowest_query_ms": ("<=", 200.0),
    "collector_slowest_page_ms": ("<=", 200.0),
    "analytics.p99_ms": ("<=", 5.0),
    "analytics.enqueue_p99_us": ("<=", 50.0),
}


def deliver(celery: float) -> Callable[[World, str], dict[str, float]]:
    def run(world: World, url: str) -> dict[str, float]:
        found = delivering.run(world, url)
        return found | {"deliver.ratio_to_celery": found["deliver.per_second"] / celery}

    return run


def measure(parts: list[str], console: Console) -> dict[str, float]:
    found: dict[str, float] = {}
    with sink.running() as url:
        runs: list[tuple[str, Callable[[World, str], dict[str, float]]]] = []
        if "record" in parts:
            runs.append(("record", lambda world, _: recording.run(world)))
        if "deliver" in parts:
            console.print("bare libcurl ...")
            found["deliver.libcurl_per_second"] = delivering.libcurl_per_second(url)
            console.print("one Celery task and one requests.post a webhook ...")
            found["deliver.celery_per_second"] = celery = delivering.celery_peer(url)
            runs.append(("deliver", deliver(celery)))
        if "latency" in parts:
            runs.append(("latency", latency.run))
        if "fairness" in parts:
            runs.append(("fairness", fairness.run))
        for name, run in runs:
            for database in DATABASES:
                console.print(f"{name} on {database} ...")
                with world(database) as made:
                    found |= {f"{key}.{database}": value for key, value in run(made, url).items()}
    if "collector" in parts:
        from bench import collector

        console.print("collector ...")
        found |= collector.run()
    if "analytics" in parts:
        from bench import analytics  # last, since the platform's events widen the table of events

        console.print("analytics ...")
        found |= analytics.run()
    return found | worst(found)


def worst(found: dict[str, float]) -> dict[str, float]:
    """For each measure of both databases the worse value, under its plain name; the slowest of a kind."""
    plain: dict[str, float] = {}
    for key in found:
        name, _, database = key.rpartition(".")
        if database in DATABASES:
            pick = max if "_ms" in name or name == "fairness.ratio" else min
            plain[name] = pick(found[f"{name}.{each}"] for each in DATABASES)
    for kind in ("query", "page"):
        if taken := [value for key, value in found.items() if key.startswith(f"collector_{kind}_")]:
            plain[f"collector_slowest_{kind}_ms"] = max(taken)
    return plain


def met(name: str, value: float) -> bool:
    """Whether a measure with a target reaches it."""
    relation, bound = TARGETS[name]
    return value >= bound if relation == ">=" else value <= bound


def table(found: dict[str, float]) -> Table:
    shown = Table("measure", *DATABASES, "worse", "target", title="Clarion, measured in one run")
    names = sorted({key.removesuffix(".sqlite").removesuffix(".postgresql") for key in found})
    for name in names:
        cells = [f"{found[key]:,.2f}" if (key := f"{name}.{d}") in found else "" for d in DATABASES]
        target, mark = "", ""
        if name in TARGETS:
            relation, bound = TARGETS[name]
            mark = "green" if met(name, found[name]) else "red"
            target = f"{relation} {bound:,g}"
        value = f"{found[name]:,.2f}" if name in found else ""
        shown.add_row(name, *cells, f"[{mark}]{value}[/]" if mark else value, target)
    return shown


def main() -> None:
    choices = ["record", "deliver", "latency", "fairness", "collector", "analytics"]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(choices)}")
    parts: list[str] = parser.parse_args().parts or choices
    if unknown := sorted(set(parts) - set(choices)):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(choices)}")
    console = Console(stderr=True)
    relax_gc()  # as `clarion relay` does; the bare client gains from it too
    found = measure(parts, console)
    kept = json.loads(LATEST.read_text()) if LATEST.exists() and parts != choices else {}
    LATEST.write_text(json.dumps(dict(sorted((kept | found).items())), indent=2) + "\n")
    Console(width=None if sys.stdout.isatty() else 120).print(table(found))


if __name__ == "__main__":
    main()
