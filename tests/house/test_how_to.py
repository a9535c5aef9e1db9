"""The how-to pages are executed as they stand: files written, commands run, output compared."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clarion.testing import Receiver

ROOT = Path(__file__).parents[2]
PAGES = [p for p in sorted((ROOT / "docs" / "how-to").glob("*.md")) if "```console" in p.read_text()]
FENCE = re.compile(r"^```(\S*)[ ]*(?:file=(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Shell:
    """Commands of a page, one after the other; ``export`` lasts, as in a terminal.

    One that ends with ``&`` is a server: it runs until `end`, and is waited for until it says where.
    """

    directory: Path
    environment: dict[str, str]
    servers: "list[subprocess.Popen[str]]" = field(default_factory=list)

    def run(self, command: str) -> str:
        command = re.sub(r"\$\((.*?)\)", lambda match: self.run(match[1]).strip(), command)
        in_background = command.endswith(" &")
        words = [self.expand(word) for word in shlex.split(command.removesuffix(" &"))]
        if words[0] == "export":
            self.environment.update(word.split("=", 1) for word in words[1:])
            return ""
        if words[0] in ("python", "clarion"):
            program = {"python": [], "clarion": ["-m", "clarion.cli"]}[words[0]]
            words = [sys.executable, *program, *words[1:]]
        if in_background:
            return self.serve(words)
        done = subprocess.run(
            words, cwd=self.directory, env=self.environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def serve(self, words: list[str]) -> str:
        """Start it; what it printed until it said its address."""
        server = subprocess.Popen(
            words, cwd=self.directory, env=self.environment, stdout=subprocess.PIPE, text=True
        )
        self.servers.append(server)
        assert server.stdout is not None
        printed = ""
        while "http://" not in printed:
            line = server.stdout.readline()
            assert line, f"{words} ended: {printed}"
            printed += line
        return printed

    def end(self) -> None:
        for server in self.servers:
            server.terminate()
            status = server.wait(20)
            assert server.stdout is not None
            server.stdout.close()
            assert status == 0, server.args

    def expand(self, word: str) -> str:
        return re.sub(r"\$(\w+)", lambda match: self.environment[match[1]], word)


def execute(page: Path, shell: Shell) -> int:
    """Run a page; returns how many commands it had. A line ``... text`` must be part of the output."""
    commands = 0
    for language, file, body in FENCE.findall(page.read_text()):
        if file:
            target = shell.directory / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(body)
        elif language == "console":
            for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", body, re.MULTILINE):
                output = shell.run(command)
                commands += 1
                for line in expected.splitlines():
                    wanted = line.removeprefix("... ") if line.startswith("... ") else line
                    assert wanted in output, f"$ {command}\nshould print {wanted!r}, printed:\n{output}"
    return commands


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    with Receiver() as receiver:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "PYTHONPATH": str(tmp_path),
            "COLUMNS": "200",
            "RECEIVER": receiver.url,
            "PORT": str(free_port()),
        }
        shell = Shell(tmp_path, environment)
        try:
            assert execute(page, shell) > 0
        finally:
            shell.end()
        if page.stem == "add-an-event":
            [received] = receiver.received
            assert json.loads(received.body)["data"]["order"]["note"] == "Ring twice, Anna"
