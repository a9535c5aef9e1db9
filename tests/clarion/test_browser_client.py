"""Builds and tests `clients/browser` with its own tools; what the service serves must be what it builds."""

import functools
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import npm

CLIENT = Path(__file__).parents[2] / "clients" / "browser"
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("node") and shutil.which("npm")),
        reason="needs Node.js 20.19 or later and npm: apt-get install nodejs npm",
    ),
    pytest.mark.timeout(300),
]


run = functools.partial(npm.run, cwd=CLIENT)


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """The client's tools, as its lock file says. One worker at a time: they share `dist`, `node_modules`."""
    with npm.installed(CLIENT):
        yield


@pytest.fixture(scope="module")
def built(installed: None) -> str:
    """What the build printed; it fails on a bundle over its size and on a stale copy in the service."""
    return run("npm", "run", "build:check")


def test_bundles_keep_to_their_size_and_the_served_script_is_what_the_source_builds(built: str) -> None:
    for bundle, limit in {"index.js": 1500, "telemetry.js": 1500, "react.js": 500}.items():
        assert f"{bundle}: " in built
        assert f"of {limit} bytes gzipped" in built
        assert not (CLIENT / "dist" / bundle).read_text().count("eval(")


def test_it_depends_on_nothing_at_run_time() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    assert "dependencies" not in package
    assert package["peerDependenciesMeta"]["react"] == {"optional": True}


def test_what_is_not_declared_does_not_compile() -> None:
    """`test/types.ts` expects an error on every line that is wrong; one that compiles is an error itself."""
    assert (CLIENT / "test" / "types.ts").read_text().count("@ts-expect-error") > 10
    run("npm", "run", "types")


def test_behaviour_in_jsdom() -> None:
    assert "passed" in run("npm", "test")


@pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no {CHROMIUM}: apt-get install chromium, or set CHROMIUM")
def test_behaviour_in_chromium(built: str) -> None:
    summary = run("npm", "run", "test:browser")
    assert "passed" in summary
    assert "skipped" not in summary


def test_the_package_can_be_installed_and_used(built: str, tmp_path: Path) -> None:
    """What `npm publish` would send, used by a strict TypeScript program and by Node."""
    run("npm", "pack", "--ignore-scripts", "--pack-destination", str(tmp_path))
    modules = tmp_path / "node_modules"
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    (modules / "@clarion").mkdir(parents=True)
    (tmp_path / "package").rename(modules / "@clarion" / "browser")
    for tool in ("react", "@types"):
        (modules / tool).symlink_to(CLIENT / "node_modules" / tool)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "use.ts").write_text(
        """
        import { createTelemetry, type Telemetry } from "@clarion/browser";
        import { useTrackOnce } from "@clarion/browser/react";
        const telemetry: Telemetry = createTelemetry({ consent: false });
        telemetry.track("view:loaded", { name: "projects" });
        // @ts-expect-error not declared
        telemetry.track("view:loaded", { name: "projects", title: "x" });
        console.log(typeof useTrackOnce, telemetry.dropped);
        """
    )
    compiler = str(CLIENT / "node_modules" / "typescript" / "bin" / "tsc")
    options = "--module nodenext --target es2022 --strict --lib es2022,dom --types node"
    run("node", compiler, *options.split(), "use.ts", cwd=tmp_path)
    assert run("node", "use.js", cwd=tmp_path).strip() == "function 0"
