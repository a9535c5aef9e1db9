"""Events of environments, and of image builds: an environment's and JupyterLab's."""

from datetime import datetime

from sqlalchemy.orm import Mapped

from clarion.declarations import fact, identity, measure
from clarion.events import Event
from orchest.events.materials import Materials
from orchest.events.projects import ProjectEvent
from orchest.events.upkeep import kept
from orchest.models import Language, Status

BUILD_TIMES = "How long builds wait and take."


class EnvironmentEvent(ProjectEvent, kind="project:environment", layer="environment"):
    """An environment of a project."""

    upkeep = kept("orchest/environments.py")

    verbs = {
        "created": "Environment {name} was created in project {project.name}",
        "deleted": "Environment {name} of project {project.name} was deleted",
    }

    environment_uuid: Mapped[str] = identity(doc="The environment.")
    environment_name: Mapped[str] = fact(doc="The environment's name.")
    environment_url: Mapped[str] = fact(doc="The environment's page.")


class ImageBuildLayer:
    """What both kinds of build tell. A mixin, because the two have no parent in common."""

    image_tag: Mapped[int] = fact(
        anonymous=True,
        doc="Counts the builds of what is built, from 1.",
        purpose="How often things are built.",
    )
    image_build_status: Mapped[Status] = fact(
        anonymous=True, doc="The state of the build.", purpose="How many builds fail."
    )
    image_build_requested_time: Mapped[datetime] = fact(
        anonymous=True, doc="When it was asked for.", purpose=BUILD_TIMES
    )
    image_build_started_time: Mapped[datetime | None] = fact(
        anonymous=True, doc="When it started.", purpose=BUILD_TIMES
    )
    image_build_finished_time: Mapped[datetime | None] = fact(
        anonymous=True, doc="When it ended.", purpose=BUILD_TIMES
    )
    image_build_gpu_support: Mapped[bool] = fact(
        anonymous=True, notified=False, doc="Whether it is for a GPU.", purpose="Whether GPUs are used."
    )
    image_build_language: Mapped[Language] = fact(
        anonymous=True, notified=False, doc="Its language.", purpose="Which languages are used."
    )

    @measure(purpose="Whether the bases we offer are the ones people need.")
    def uses_base_image_of_ours(self) -> bool:
        """Whether its base is one that comes with the platform."""
        assert isinstance(self, Materials)
        ours: bool = self.given("base_is_ours")
        return ours


class EnvironmentImageBuildEvent(
    ImageBuildLayer, EnvironmentEvent, kind="project:environment:image-build", layer="image_build"
):
    """A build of an environment."""

    upkeep = kept("orchest/builds.py")

    materials = frozenset({"base_is_ours"})
    verbs = {
        "created": "Build {image_tag} of environment {project.environment.name} was requested",
        "started": "Build {image_tag} of environment {project.environment.name} started",
        "succeeded": "Build {image_tag} of environment {project.environment.name} succeeded",
        "failed": "Build {image_tag} of environment {project.environment.name} failed",
        "cancelled": "Build {image_tag} of environment {project.environment.name} was cancelled",
    }


class JupyterEvent(Materials, Event, layer="jupyter"):
    """The user's JupyterLab."""


class JupyterImageBuildEvent(ImageBuildLayer, JupyterEvent, kind="jupyter:image-build", layer="image_build"):
    """A build of JupyterLab with the user's set-up script."""

    upkeep = kept("orchest/builds.py")

    materials = frozenset({"base_is_ours"})
    verbs = {
        "created": "Build {image_tag} of JupyterLab was requested",
        "started": "Build {image_tag} of JupyterLab started",
        "succeeded": "Build {image_tag} of JupyterLab succeeded",
        "failed": "Build {image_tag} of JupyterLab failed",
        "cancelled": "Build {image_tag} of JupyterLab was cancelled",
    }
