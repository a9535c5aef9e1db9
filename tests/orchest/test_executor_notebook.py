import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from orchest.executor import Run, Status, read_log

from .building import Background, Project, Recorder, eventually, uuid_of

pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")


def notebook(*cells: str) -> str:
    made: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"c{n}",
            "source": code,
            "metadata": {},
            "outputs": [],
            "execution_count": None,
        }
        for n, code in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "whatever", "display_name": "x", "language": "python"}}
    return json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5})


def executed(project: Project) -> list[Any]:
    cells: list[Any] = json.loads((project.run_dir / "steps" / uuid_of("N") / "notebook.ipynb").read_text())[
        "cells"
    ]
    return cells


def project_of(tmp_path: Path, *cells: str, **fields: Any) -> Project:
    return Project(tmp_path, {"N": {"file_path": "n.ipynb", "code": notebook(*cells), **fields}})


def test_a_notebook_runs_with_its_parameters_and_is_kept(tmp_path: Path) -> None:
    cells = [
        "import os, orchest\nprint(orchest.get_step_param('x'), os.getcwd())",
        "orchest.output(5, name='five')",
        "6*7",
    ]
    project = project_of(
        tmp_path, *cells, parameters={"x": "here"}, kernel={"name": "python", "display_name": "P"}
    )
    source = (project.directory / "n.ipynb").read_text()
    assert project.execute().status is Status.SUCCESS, project.log("N")
    assert project.log("N") == f"here {project.directory}\n42\n"
    assert executed(project)[2]["outputs"][0]["data"]["text/plain"] == ["42"]
    assert (project.directory / "n.ipynb").read_text() == source  # the user's own is not written
    assert json.loads((project.run_dir / "data" / f"{uuid_of('N')}.json").read_text())["name"] == "five"


def test_a_cell_that_fails_fails_the_step_and_is_kept(tmp_path: Path) -> None:
    project = project_of(tmp_path, "print('before')", "1/0", "print('never')")
    step = project.execute().steps[uuid_of("N")]
    assert (step.status, step.exit_code) == (Status.FAILURE, 1)
    log = project.log("N")
    assert log.startswith("before\n")
    assert "ZeroDivisionError" in log
    assert "never\n" not in log
    assert executed(project)[1]["outputs"][0]["ename"] == "ZeroDivisionError"


def test_output_is_seen_while_it_runs_and_an_abort_ends_the_kernel(tmp_path: Path) -> None:
    cells = ["import os\nprint('pid', os.getpid(), flush=True)\nimport time\nwhile True: time.sleep(0.05)"]
    project = project_of(tmp_path, *cells)
    run = Run(project.spec(grace=0.5), Recorder(project.definition))
    background = Background(run)
    eventually(
        lambda: "pid" in read_log(project.run_dir, uuid_of("N")).text, "output of the running cell", 60
    )
    kernel = int(project.log("N").split()[1])
    run.abort()
    assert background.join().status is Status.ABORTED
    assert not Path(f"/proc/{kernel}").exists()


def test_a_kernel_that_is_not_installed(tmp_path: Path) -> None:
    project = project_of(tmp_path, "1", kernel={"name": "no-such-kernel", "display_name": "x"})
    assert project.execute().status is Status.FAILURE
    assert "no-such-kernel" in project.log("N")


def test_a_file_that_is_no_notebook(tmp_path: Path) -> None:
    project = Project(tmp_path, {"N": {"file_path": "n.ipynb", "code": "not json"}})
    assert project.execute().status is Status.FAILURE
    assert "is not a notebook" in project.log("N")


def test_an_environment_without_jupyter_says_what_it_needs(tmp_path: Path) -> None:
    project = project_of(tmp_path, "1")
    assert project.execute(python=Path(os.path.realpath(sys.executable))).status is Status.FAILURE
    assert "needs nbclient and ipykernel" in project.log("N")
