"""What the tour brings along beside the example project: scripts, definitions of pipelines, messages."""

from typing import Any

ENVIRONMENT = "3f2a9d64-7c1b-4e58-9a0d-b4c6e8f01206"
"""The environment that the example's pipeline names."""

LATER = "5d0f4a3c-8e21-4b7a-9c66-2f1b7a9d3e10"
"""An environment that is deleted while a job needs it."""

CHECK = '''"""Check: fails when told to, after as many seconds as it is told to wait."""

import time

import orchest

time.sleep(float(orchest.get_pipeline_param("seconds")))
if orchest.get_pipeline_param("broken"):
    raise SystemExit("the check failed, as it was told to")
print("all is well")
'''

WAIT = '''"""Wait for a minute, unless somebody loses patience."""

import time

time.sleep(60)
'''

BROWSER = (
    ("view:loaded", {"name": "jobs"}),
    ("alert:shown", {"dialog": "build-required"}),
    ("confirm:shown", {"dialog": "delete-job"}),
)
"""What browsers send, and no server does."""


def step(number: int, title: str, file: str, **more: Any) -> dict[str, Any]:
    """A step of a definition, by its uuid."""
    uuid = f"7c000000-0000-4000-8000-{number:012d}"
    return {uuid: {"uuid": uuid, "title": title, "file_path": file, "incoming_connections": [], **more}}


CHECKS = {
    "name": "Checks",
    "uuid": "7c000000-0000-4000-8000-00000000c0de",
    "parameters": {"seconds": 0, "broken": False, "api_token": "not to be seen"},
    "steps": step(1, "Check", "check.py"),
}
BROKEN_SERVICE = {
    "name": "Broken service",
    "uuid": "7c000000-0000-4000-8000-0000000bad00",
    "services": {
        "database": {"name": "database", "command": "false", "scope": ["interactive"], "ports": [5432]}
    },
}
FILES = {
    "name": "files",
    "image": f"environment@{ENVIRONMENT}",
    "command": "python -m http.server",
    "args": "$ORCHEST_PORT_8000 --bind 127.0.0.1",
    "scope": ["interactive"],
    "ports": [8000],
    "binds": {"data": "/srv/data"},
}
