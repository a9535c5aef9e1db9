"""Why the last session of a pipeline failed: the session's row is gone by then, so this is kept as a file.

One small file a pipeline, in `Site.sessions`, until a session of it starts again.
"""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from orchest.sessions import Hosted
from orchest.site import Site

TAIL = 4096
"""Bytes kept of the end of each service's log."""


@dataclass(frozen=True, slots=True)
class Failure:
    """``logs`` has the end of what each service that was started has printed."""

    failed: str
    """ISO 8601, UTC."""
    reason: str
    logs: dict[str, str]


def file_of(site: Site, project_uuid: str, pipeline_uuid: str) -> Path:
    return site.sessions / f"{project_uuid}.{pipeline_uuid}.json"


def keep_failure(site: Site, taken: Hosted, reason: str, now: datetime) -> None:
    """Write down why a session failed, while the logs of its services are still there."""
    logs = {name: tail_of(taken.directory / f"{n}.log") for n, name in enumerate(taken.services)}
    failure = Failure(now.isoformat().replace("+00:00", "Z"), reason, {k: v for k, v in logs.items() if v})
    path = file_of(site, taken.project_uuid, taken.pipeline_uuid)
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".tmp")
    new.write_text(json.dumps(asdict(failure)), encoding="utf-8")
    new.chmod(0o600)
    new.replace(path)


def forget_failure(site: Site, project_uuid: str, pipeline_uuid: str) -> None:
    """A session of the pipeline starts, or there is no such pipeline any more."""
    file_of(site, project_uuid, pipeline_uuid).unlink(missing_ok=True)


def last_failure(site: Site, project_uuid: str, pipeline_uuid: str) -> Failure | None:
    """Why the pipeline's last session failed; None when it did not, or another has started since."""
    try:
        return Failure(**json.loads(file_of(site, project_uuid, pipeline_uuid).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def kept_failures(site: Site) -> list[tuple[str, str]]:
    """The project and pipeline of each failure that is kept."""
    names = [path.name.split(".") for path in site.sessions.glob("*.*.json")]
    return [(name[0], name[1]) for name in names if len(name) == 3]


def tail_of(log: Path) -> str:
    try:
        with log.open("rb") as opened:
            opened.seek(max(log.stat().st_size - TAIL, 0))
            return opened.read(TAIL).decode(errors="replace")
    except FileNotFoundError:
        return ""
