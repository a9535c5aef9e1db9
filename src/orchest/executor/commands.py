"""What is executed for a step: its command line and its environment. No process is started here."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from orchest.definition import Definition, Step
from orchest.executor.processes import MARK

HERE = Path(__file__).parent
INHERITED = frozenset({"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "USER", "LOGNAME", "SHELL"})
"""All that a step sees of the platform's own environment, besides ``LC_*``: an allow-list, so that database
addresses, tokens and secrets stay here however they are named."""
RESERVED = "ORCHEST_"
_KERNELS = {"python": "python3", "r": "ir"}


class CannotStart(Exception):
    """This step cannot be executed; says why in a user's words."""


def step_file(step: Step, project_dir: Path, working_dir: Path) -> Path:
    """The file of a step. Raises `CannotStart` if it is missing, or a link leads out of the project."""
    path = (working_dir / step.file_path).resolve()
    if not path.is_relative_to(project_dir.resolve()):
        raise CannotStart(f"its file {step.file_path} leads out of the project")
    if not path.is_file():
        raise CannotStart(f"its file {step.file_path} does not exist")
    return path


def command_line(step: Step, path: Path, python: Path, notebook: Path, search: str) -> list[str]:
    """The command of a step. ``search`` is the PATH it will run with. Raises `CannotStart`."""
    if step.extension == "py":
        return [str(python), str(path)]
    if step.extension == "ipynb":
        kernel = _KERNELS.get(step.kernel_name.lower(), step.kernel_name)
        return [str(python), str(HERE / "notebook.py"), str(path), str(notebook), kernel]
    if step.extension == "sh":
        return [shutil.which("bash", path=search) or "/bin/sh", str(path)]
    program = {"r": "Rscript", "jl": "julia"}.get(step.extension)
    if program is None:
        raise CannotStart(f"its file {step.file_path} is of no kind that can be executed")
    found = shutil.which(program, path=search)
    if found is None:
        raise CannotStart(f"{program} is not installed in its environment")
    return [found, str(path)]


def environment(
    definition: Definition,
    step: Step,
    python: Path,
    *,
    given: Mapping[str, str],
    own: Mapping[str, str],
    parameters: tuple[Mapping[str, object], Mapping[str, object]],
    project_dir: Path,
    data_dir: Path,
    artifacts_dir: Path,
    mark: str,
) -> dict[str, str]:
    """The whole environment of a step: some of our ``own``, what the user has ``given``, and ours last.

    ``parameters`` are the pipeline's and the step's, overrides of the run included.
    """
    variables = {name: value for name, value in own.items() if name in INHERITED or name.startswith("LC_")}
    variables.update((name, value) for name, value in given.items() if not name.startswith(RESERVED))
    variables["PATH"] = os.pathsep.join([str(python.parent), variables.get("PATH") or os.defpath])
    # a shell step's `python -m orchest` and every script find our module first
    paths = [str(HERE / "sdk"), given.get("PYTHONPATH", "")]
    variables["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    variables.setdefault("PYTHONUNBUFFERED", "1")  # otherwise a log shows nothing until the step ends
    variables.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    inputs = [{"uuid": uuid, "title": definition.steps[uuid].title} for uuid in step.incoming]
    ours = {
        "ORCHEST_PIPELINE_UUID": definition.uuid,
        "ORCHEST_STEP_UUID": step.uuid,
        "ORCHEST_STEP_TITLE": step.title,
        "ORCHEST_PIPELINE_PARAMETERS": json.dumps(dict(parameters[0])),
        "ORCHEST_STEP_PARAMETERS": json.dumps(dict(parameters[1])),
        "ORCHEST_INPUTS": json.dumps(inputs),
        "ORCHEST_DATA_DIR": str(data_dir),
        "ORCHEST_ARTIFACTS_DIR": str(artifacts_dir),
        "ORCHEST_PROJECT_DIR": str(project_dir),
        MARK: mark,
    }
    return variables | ours
