"""Events of interactive sessions and of the pipeline runs in them."""

from typing import Any

from sqlalchemy.orm import Mapped
from typing_extensions import TypedDict

from clarion.declarations import fact, identity, measure
from orchest.definition import parse
from orchest.events.materials import extension_count, shape_count
from orchest.events.projects import PipelineEvent
from orchest.events.upkeep import kept
from orchest.models import SessionStatus, Status

RUNS = "How pipelines are run, and how many runs fail."


class StepRef(TypedDict):
    """A step, named."""

    uuid: str
    title: str


class SessionEvent(PipelineEvent, kind="project:pipeline:interactive-session", layer="session"):
    """An interactive session of a pipeline."""

    upkeep = kept("orchest/sessions.py")

    materials = frozenset({"session_definition"})
    verbs = {
        "started": "A session of pipeline {project.pipeline.name} is starting",
        "succeeded": "A session of pipeline {project.pipeline.name} is running",
        "failed": "A session of pipeline {project.pipeline.name} failed",
        "stopped": "A session of pipeline {project.pipeline.name} was stopped",
        "service-restarted": "Service {restarted_service} of pipeline {project.pipeline.name} was restarted",
    }

    session_status: Mapped[SessionStatus] = fact(
        anonymous=True, doc="The state of the session.", purpose="How many sessions fail, and when."
    )
    session_services: Mapped[list[str]] = fact(doc="The names of its services.")
    restarted_service: Mapped[str] = fact(
        verbs=("service-restarted",), doc="The name of the service that was restarted."
    )
    active_runs: Mapped[bool] = fact(
        anonymous=True,
        notified=False,
        verbs=("service-restarted",),
        doc="Whether a pipeline run of the session was active at that moment.",
        purpose="Whether people restart services under running pipelines.",
    )

    @measure(purpose="Whether services are used.")
    def session_services_count(self) -> int:
        """Services of the session."""
        return len(self.session_services)

    @measure(key="binds_count", purpose="Whether services are used with files of the user.")
    def session_binds_count(self) -> int:
        """Paths that are bound into its services."""
        services = parse(self.given("session_definition")).services
        return sum(len(services[name].binds) for name in self.session_services)


class InteractivePipelineRunEvent(
    SessionEvent, kind="project:pipeline:interactive-session:pipeline-run", layer="pipeline_run"
):
    """A pipeline run in an interactive session."""

    upkeep = kept("orchest/runs.py")

    materials = frozenset({"session_definition", "definition"})
    verbs = {
        "created": "A run of pipeline {project.pipeline.name} was requested",
        "started": "A run of pipeline {project.pipeline.name} started",
        "succeeded": "A run of pipeline {project.pipeline.name} succeeded",
        "failed": "A run of pipeline {project.pipeline.name} failed",
        "cancelled": "A run of pipeline {project.pipeline.name} was cancelled",
    }

    pipeline_run_uuid: Mapped[str] = identity(doc="The pipeline run.")
    pipeline_run_status: Mapped[Status] = fact(
        anonymous=True, doc="The state of the pipeline run.", purpose=RUNS
    )
    pipeline_run_number: Mapped[int] = fact(
        anonymous=True, doc="Counts the interactive runs of the pipeline, from 1.", purpose=RUNS
    )
    pipeline_run_url: Mapped[str] = fact(doc="The run's page.")
    pipeline_run_steps: Mapped[list[StepRef]] = fact(doc="The steps it runs.")
    pipeline_run_parameters: Mapped[dict[str, Any]] = fact(
        doc="The pipeline's parameters and its steps', with secrets redacted."
    )
    pipeline_run_failed_steps: Mapped[list[StepRef]] = fact(doc="The steps that failed.")

    @measure(purpose=RUNS)
    def pipeline_run_steps_count(self) -> int:
        """Steps it runs."""
        return len(self.pipeline_run_steps)

    @measure(purpose=RUNS)
    def pipeline_run_failed_steps_count(self) -> int:
        """Steps that failed."""
        return len(self.pipeline_run_failed_steps)

    @measure(purpose="Whether parameters are used.")
    def pipeline_run_parameters_count(self) -> int:
        """Parameters of the pipeline and its steps in this run."""
        return sum(len(values) for values in self.pipeline_run_parameters.values())

    definition_pipeline_parameters_count = shape_count(
        "pipeline_parameters_count", "Parameters of the pipeline."
    )
    definition_step_count = shape_count("step_count", "Steps of the pipeline.")
    definition_unique_environments_count = shape_count(
        "unique_environments_count", "Different environments its steps run in."
    )
    definition_step_parameters_count = shape_count("step_parameters_count", "Parameters of its steps.")
    definition_step_file_extension_count = extension_count()
    definition_services_count = shape_count("services_count", "Services of the pipeline.")
    definition_binds_count = shape_count("binds_count", "Paths that are bound into its services.")
    definition_max_depth = shape_count("max_depth", "Steps on the longest path through it.")
    definition_edge_count = shape_count("edge_count", "Connections between its steps.")
