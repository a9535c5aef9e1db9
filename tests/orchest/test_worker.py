"""What ``celery --app`` runs, for deliveries and for runs, and the platform that leaves its runs to it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clarion.errors import ConfigurationError
from orchest.app import workers_of
from orchest.celery import RunsNudge
from orchest.server import prepare
from orchest.settings import Settings
from orchest.supervisor import Supervisor

BROKER = "redis://127.0.0.1:6379/13"


def load(module: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Import ``module`` in a process of its own and name the tasks and the queue of its application."""
    code = f"from {module} import app; print(*sorted(app.tasks), app.conf.task_default_queue)"
    given = {
        "PATH": os.environ["PATH"],
        "CLARION_DATABASE_URL": f"sqlite:///{tmp_path / 'x.db'}",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-c", code], env=given, cwd=tmp_path, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("module", "task", "queue"),
    [("clarion.worker", "clarion.deliver", "deliveries"), ("orchest.worker", "orchest.supervise", "runs")],
)
def test_celery_finds_an_application_set_by_variables(
    module: str, task: str, queue: str, tmp_path: Path
) -> None:
    done = load(module, tmp_path, CLARION_BROKER_URL=BROKER, ORCHEST_BASE_URL="http://127.0.0.1:8470")
    assert done.returncode == 0, done.stderr
    assert task in done.stdout.split()
    assert done.stdout.split()[-1] == queue
    refused = load(module, tmp_path, ORCHEST_BASE_URL="http://127.0.0.1:8470")
    assert refused.returncode == 1
    assert "CLARION_BROKER_URL: name the broker" in refused.stderr


def test_a_worker_is_told_where_the_platform_is(tmp_path: Path) -> None:
    """It was not, and could then start no run: the links of a run's events lead there."""
    refused = load("orchest.worker", tmp_path, CLARION_BROKER_URL=BROKER)
    assert refused.returncode == 1
    assert "ORCHEST_BASE_URL: name the address" in refused.stderr


def test_a_platform_with_celery_supervises_no_runs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLARION_DATABASE_URL", f"sqlite:///{tmp_path / 'x.db'}")
    settings = Settings(data=tmp_path, executor="celery")
    with pytest.raises(ConfigurationError, match="CLARION_BROKER_URL"):
        prepare(settings, "http://localhost")
    monkeypatch.setenv("CLARION_BROKER_URL", BROKER)
    platform = prepare(settings, "http://localhost")
    try:
        kinds = {type(worker) for worker in workers_of(platform)}
        assert RunsNudge in kinds
        assert Supervisor not in kinds
    finally:
        platform.close()
