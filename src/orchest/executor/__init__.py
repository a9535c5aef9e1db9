"""Executes pipelines. Knows definitions and processes; knows no database, no event, no HTTP."""

from orchest.executor.engine import Observer, Run, RunResult, RunSpec, StepResult
from orchest.executor.rundir import (
    Executor,
    LogChunk,
    Orphan,
    RunDir,
    executor_state,
    read_chunk,
    read_log,
    reap_orphans,
)
from orchest.states import Status

__all__ = [
    "Executor",
    "LogChunk",
    "Observer",
    "Orphan",
    "Run",
    "RunDir",
    "RunResult",
    "RunSpec",
    "Status",
    "StepResult",
    "executor_state",
    "read_chunk",
    "read_log",
    "reap_orphans",
]
