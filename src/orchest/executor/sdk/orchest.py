"""What a step can ask of the platform: its parameters, the data of the steps before it, and to leave its own.

On every step's PYTHONPATH; standard library only, any Python 3.9+. The names are those of the original SDK:

    import orchest
    k = orchest.get_pipeline_param("k", 5)
    rows = orchest.get_inputs()["rows"]
    orchest.output(model, name="model")

In a shell step: ``python -m orchest param k``, ``... input rows``, ``... output --name rows < rows.json``.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from pathlib import Path
from typing import Any

__all__ = ["artifact", "get_inputs", "get_pipeline_param", "get_step_param", "output"]

_NOTHING = object()


def get_step_param(name: str, default: Any = _NOTHING) -> Any:
    """A parameter of this step. Not set and no default: KeyError naming those that are."""
    return _param("ORCHEST_STEP_PARAMETERS", "step", name, default)


def get_pipeline_param(name: str, default: Any = _NOTHING) -> Any:
    """A parameter of the pipeline, with the value of this run."""
    return _param("ORCHEST_PIPELINE_PARAMETERS", "pipeline", name, default)


def get_inputs() -> dict[str, Any]:
    """What the steps before this one left: by name, and those without one listed under "unnamed".

    In the order of the incoming connections. A step that left nothing is skipped; twice one name: ValueError.
    """
    inputs: dict[str, Any] = {"unnamed": []}
    for source in json.loads(_variable("ORCHEST_INPUTS")):
        head_file = _data_dir() / f"{source['uuid']}.json"
        if not head_file.exists():
            continue
        head = json.loads(head_file.read_text())
        raw = (_data_dir() / head["file"]).read_bytes()
        # from a step of the same run: the same user's code, which unpickling may execute
        value = json.loads(raw) if head["format"] == "json" else pickle.loads(raw)  # noqa: S301
        if head["name"] is None:
            inputs["unnamed"].append(value)
        elif head["name"] in inputs:
            raise ValueError(f"two steps before this one output data named {head['name']!r}")
        else:
            inputs[head["name"]] = value
    return inputs


def output(data: Any, name: str | None = None) -> None:
    """Leave data for the steps after this one; again: replaces it.

    Plain data (None, bool, int, float, str, list, dict of str) is kept as JSON, which any language reads;
    anything else is pickled, so that it arrives as it was.
    """
    if name == "unnamed":
        raise ValueError('the name "unnamed" means data without a name: leave the name out')
    step, directory = _variable("ORCHEST_STEP_UUID"), _data_dir()
    directory.mkdir(parents=True, exist_ok=True)
    plain = _plain(data)
    body = json.dumps(data).encode() if plain else pickle.dumps(data)
    kind = "json" if plain else "pickle"
    file = f"{step}.data.{kind}"
    _replace(directory / file, body)
    _replace(directory / f"{step}.json", json.dumps({"name": name, "format": kind, "file": file}).encode())


def artifact(name: str) -> Path:
    """Where to write a file the run leaves for its user, such as a report; each run has its own place."""
    return Path(_variable("ORCHEST_ARTIFACTS_DIR")) / name


def _plain(data: Any) -> bool:
    if type(data) is dict:
        return all(type(key) is str and _plain(value) for key, value in data.items())
    if type(data) is list:
        return all(map(_plain, data))
    return data is None or type(data) in (bool, int, float, str)


def _param(variable: str, owner: str, name: str, default: Any) -> Any:
    parameters = json.loads(_variable(variable))
    if name in parameters:
        return parameters[name]
    if default is not _NOTHING:
        return default
    raise KeyError(f"the {owner} has no parameter {name!r}; it has {sorted(parameters)}")


def _variable(name: str) -> str:
    try:
        return os.environ[name]
    except KeyError:
        raise RuntimeError(f"{name} is not set: this works only in a step that Orchest executes") from None


def _data_dir() -> Path:
    return Path(_variable("ORCHEST_DATA_DIR"))


def _replace(path: Path, body: bytes) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    new.write_bytes(body)
    new.replace(path)


def _main(arguments: list[str]) -> int:
    usage = "usage: python -m orchest param NAME | step-param NAME | input [NAME] | output [--name NAME]"
    if arguments[:1] == ["output"] and (
        len(arguments) == 1 or (len(arguments) == 3 and arguments[1] == "--name")
    ):
        output(json.load(sys.stdin), arguments[2] if len(arguments) == 3 else None)
        return 0
    if len(arguments) == 2 and arguments[0] in ("param", "step-param"):
        value = (get_pipeline_param if arguments[0] == "param" else get_step_param)(arguments[1])
    elif len(arguments) in (1, 2) and arguments[0] == "input":
        inputs = get_inputs()
        value = inputs[arguments[1]] if len(arguments) == 2 else inputs
    else:
        print(usage, file=sys.stderr)
        return 2
    print(value if isinstance(value, str) else json.dumps(value))
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
