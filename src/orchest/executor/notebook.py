"""Executes a notebook. Run as a script by the interpreter of the step's environment, never imported.

``python notebook.py SOURCE TARGET KERNEL``: cell output goes to stdout as it is printed; the executed
notebook is written to TARGET after every cell, the one with the error included. Exit code 1: a cell failed.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

try:
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from traitlets.config import Config
except ImportError as error:
    print(f"a notebook step needs nbclient and ipykernel in its environment: {error}", file=sys.stderr)
    sys.exit(1)


class Client(NotebookClient):
    """Prints what the cells print while they run."""

    def output(self, outs, msg, display_id, cell_index):  # type: ignore[no-untyped-def]
        """Every output message of the kernel passes here; streams are shown at once."""
        content = msg["content"]
        if msg["msg_type"] == "stream":
            print(content["text"], end="", flush=True)
        elif msg["msg_type"] in ("execute_result", "display_data"):
            print(content["data"].get("text/plain", ""), flush=True)
        return super().output(outs, msg, display_id, cell_index)


def main(source: Path, target: Path, kernel: str) -> int:
    """Execute one notebook; answers with the exit code."""
    try:
        notebook = nbformat.read(source, as_version=4)  # type: ignore[no-untyped-call]
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, AttributeError, KeyError) as error:
        print(f"{source.name} is not a notebook: {error}", file=sys.stderr)
        return 1
    # sockets in a private directory, not TCP ports that any user of the machine may connect to; a short
    # path, for a socket's may have 107 bytes (unix(7))
    private = tempfile.mkdtemp(prefix="orchest-", dir="/tmp")
    os.environ["JUPYTER_RUNTIME_DIR"] = private
    os.environ["IPYTHONDIR"] = private  # nothing of the user's own profile
    try:
        return execute(notebook, target, kernel)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def execute(notebook: nbformat.NotebookNode, target: Path, kernel: str) -> int:
    """Execute a read notebook and keep it in ``target``, however it ends."""

    def keep(**_: object) -> None:
        new = target.with_suffix(".tmp")
        nbformat.write(notebook, new)  # type: ignore[no-untyped-call]
        new.replace(target)

    client = Client(
        notebook,
        timeout=None,  # the executor holds the time limit
        kernel_name=kernel,
        resources={"metadata": {"path": str(Path.cwd())}},
        on_cell_executed=keep,
        config=Config({"KernelManager": {"transport": "ipc"}}),
    )
    try:
        client.execute()
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        keep()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]))
