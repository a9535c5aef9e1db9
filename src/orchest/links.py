"""Where things are shown: the absolute address of each page that events lead to."""

from dataclasses import dataclass

PAGES = {
    "project": "/projects/{project}",
    "pipeline": "/projects/{project}/pipelines/{pipeline}",
    "interactive_run": "/projects/{project}/pipelines/{pipeline}/runs/{run}",
    "environment": "/projects/{project}/environments/{environment}",
    "job": "/projects/{project}/jobs/{job}",
    "job_run": "/projects/{project}/jobs/{job}/runs/{run}",
}
"""The path of each page; the web server serves every one of them."""


@dataclass(frozen=True, slots=True)
class Links:
    """Absolute addresses under ``base``, the address of the platform as its users reach it."""

    base: str

    def __post_init__(self) -> None:
        if not self.base.startswith(("http://", "https://")):
            raise ValueError(f"{self.base!r} is not an absolute http(s) address")

    def to(self, page: str, **identifiers: str) -> str:
        """The address of one of `PAGES`."""
        return self.base.rstrip("/") + PAGES[page].format(**identifiers)
