"""Events of projects and pipelines."""

from sqlalchemy import func, select
from sqlalchemy.orm import Mapped, Session

from clarion.declarations import fact, identity, measure
from clarion.events import Event
from orchest.events.changes import Change, Counts, count_changes
from orchest.events.materials import Materials
from orchest.events.upkeep import kept
from orchest.models import Pipeline, Project

INSTALLATION_SIZE = "How large installations are."
UPDATES = "Which things people change, to know what should be easy to change."


class ProjectEvent(Materials, Event, kind="project", layer="project"):
    """A project."""

    upkeep = kept("orchest/deletion.py", "orchest/projects.py")

    verbs = {
        "created": "Project {name} was created",
        "updated": "Project {name} was changed",
        "deleted": "Project {name} was deleted",
    }

    project_uuid: Mapped[str] = identity(doc="The project.")
    project_name: Mapped[str] = fact(doc="The project's name.")
    project_url: Mapped[str] = fact(doc="The project's page.")
    project_changes: Mapped[list[Change]] = fact(
        key="update.changes", verbs=("updated",), doc="What was changed."
    )

    @measure(key="update.counts", verbs=("updated",), purpose=UPDATES)
    def project_change_counts(self) -> Counts:
        """How many changes of each type were made to each kind of thing."""
        return count_changes(self.project_changes)

    @measure(verbs=("created", "deleted"), purpose=INSTALLATION_SIZE)
    def projects_count(self, session: Session) -> int:
        """Projects of the installation, when the event was recorded."""
        return session.scalar(select(func.count()).select_from(Project)) or 0


class PipelineEvent(ProjectEvent, kind="project:pipeline", layer="pipeline"):
    """A pipeline of a project."""

    upkeep = kept("orchest/deletion.py", "orchest/pipelines.py")

    verbs = {
        "created": "Pipeline {name} was created in project {project.name}",
        "updated": "Pipeline {name} of project {project.name} was changed",
        "deleted": "Pipeline {name} of project {project.name} was deleted",
    }

    pipeline_uuid: Mapped[str] = identity(doc="The pipeline.")
    pipeline_name: Mapped[str] = fact(doc="The pipeline's name.")
    pipeline_url: Mapped[str] = fact(doc="The pipeline's page.")
    pipeline_changes: Mapped[list[Change]] = fact(
        key="update.changes", verbs=("updated",), doc="What was changed."
    )

    @measure(key="update.counts", verbs=("updated",), purpose=UPDATES)
    def pipeline_change_counts(self) -> Counts:
        """How many changes of each type were made to each kind of thing."""
        return count_changes(self.pipeline_changes)

    @measure(verbs=("created", "deleted"), purpose="How large projects are.")
    def project_pipelines_count(self, session: Session) -> int:
        """Pipelines of the project, when the event was recorded."""
        pipelines = select(func.count()).where(Pipeline.project_uuid == self.project_uuid)
        return session.scalar(pipelines) or 0
