"""Every check of the project, each in an environment of its own (`nox -l` lists them).

Versions of Python, packages, extras and bounds are read from pyproject.toml: said there, once.
"""

from __future__ import annotations

import os
import shutil
import sys
from email import message_from_bytes
from pathlib import Path
from tarfile import open as open_tar
from typing import TYPE_CHECKING
from zipfile import ZipFile

import nox
from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator
    from email.message import Message

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "virtualenv"
nox.options.sessions = ["lint", "types", "tests"]
# Whoever has one supported Python can check their work; the others are skipped, not fetched.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

ROOT = Path(__file__).parent
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
PROJECT = PYPROJECT["project"]
PACKAGES = [Path(p) for p in PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]
PYTHONS = nox.project.python_versions(PYPROJECT)
OLDEST = PYTHONS[0]
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
CORE_COVERAGE = 95  # per cent of the core's lines and branches


def group(name: str) -> tuple[str, ...]:
    """The requirements of one of pyproject's dependency groups."""
    return nox.project.dependency_groups(PYPROJECT, name)


@nox.session(reuse_venv=True)
def demo(session: nox.Session) -> None:
    """Tell the whole story on this machine; `-- --adapter starlette` or `lambda` with another."""
    session.install(".[flask,starlette,lambda,sandbox]")
    session.run("wechatpay-kit", "demo", *session.posargs)


@nox.session(reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Run ruff: every rule, and the format."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session(reuse_venv=True)
def types(session: nox.Session) -> None:
    """Run mypy, strict, over all packages."""
    session.install("-e", ".[all]", *group("types"))
    session.run("mypy", *session.posargs)


# With the interpreter at hand always among them, skipping all is never a pass.
@nox.session(python=list(dict.fromkeys([*PYTHONS, RUNNING])))
def tests(session: nox.Session) -> None:
    """Run the suite; without arguments (`-- -k name`) all of it, and measure what it covered."""
    session.install(".[all]", *group("tests"))
    # Absolute: the tests start processes in other directories, and those are measured too.
    session.env["COVERAGE_FILE"] = str(ROOT / f".coverage.{session.name}")
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or ("-n", "auto")))
    if not session.posargs:
        check_coverage(session)


def check_coverage(session: nox.Session) -> None:
    """Report on every package; hold the core to its share."""
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report")
    session.log(f"The core alone must reach {CORE_COVERAGE} % of lines and branches:")
    session.run(
        "coverage",
        "report",
        "--include=core/*",
        f"--fail-under={CORE_COVERAGE}",
        "--format=total",
    )


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """Run the suite with every runtime dependency at the lower bound that we declare."""
    session.install(".[all]", *group("tests"), *lower_bounds())
    session.run("pytest", *(session.posargs or ("-n", "auto")))


def lower_bounds() -> Iterator[str]:
    """One exact pin for each declared dependency, those of the extras included."""
    extras = PROJECT["optional-dependencies"].values()
    for declared in [*PROJECT["dependencies"], *(line for lines in extras for line in lines)]:
        requirement = Requirement(declared)
        if requirement.name != PROJECT["name"]:
            (bound,) = (s.version for s in requirement.specifier if s.operator == ">=")
            yield f"{requirement.name}=={bound}"


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, side by side with the floor: ratios, not verdicts."""
    session.install(".[all]", *group("bench"))
    for script in sorted((ROOT / "benchmarks").glob("*.py")):
        session.run("python", str(script))


@nox.session
def build(session: nox.Session) -> None:
    """Build sdist and wheel into dist/; install the wheel with each extra into an empty venv."""
    session.install(*group("build"))
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(dist))
    (wheel,) = dist.glob("*.whl")
    (sdist,) = dist.glob("*.tar.gz")
    metadata = read_metadata(wheel)
    wrong = [
        *wrong_in_wheel(wheel),
        *wrong_in_metadata(metadata),
        *wrong_in_sdist(sdist),
    ]
    if wrong:
        session.error("; ".join(wrong))
    check_installed(session, str(wheel), set())
    for extra in metadata.get_all("Provides-Extra", []):
        check_installed(session, f"{wheel}[{extra}]", with_implied(extra, metadata))


def read_metadata(wheel: Path) -> Message:
    """What an installer reads of the wheel."""
    with ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return message_from_bytes(archive.read(name))


def wrong_in_wheel(wheel: Path) -> Iterator[str]:
    """The wheel holds our packages, typed, and the licence; and nothing else."""
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}.dist-info"
    packages = {package.name for package in PACKAGES}
    found = {name.split("/")[0] for name in names}
    if found != packages | {info}:
        yield f"the wheel's top level is {sorted(found)}"
    for name in [f"{info}/licenses/LICENSE", *(f"{package}/py.typed" for package in packages)]:
        if name not in names:
            yield f"the wheel has no {name}"


def wrong_in_metadata(metadata: Message) -> Iterator[str]:
    """The metadata say what pyproject says."""
    expected = {
        "Name": [PROJECT["name"]],
        "Version": [PROJECT["version"]],
        "Summary": [PROJECT["description"]],
        "License-Expression": [PROJECT["license"]],
        "License-File": PROJECT["license-files"],
        "Requires-Python": [PROJECT["requires-python"]],
        "Provides-Extra": sorted(PROJECT["optional-dependencies"]),
        "Description-Content-Type": ["text/markdown"],
    }
    for field, values in expected.items():
        if sorted(metadata.get_all(field, [])) != values:
            yield f"metadata {field} is {metadata.get_all(field)}, not {values}"
    # The README is UTF-8 and the message says no charset: compare the bytes.
    if metadata.get_payload(decode=True) != (ROOT / PROJECT["readme"]).read_bytes():
        yield f"the metadata's description is not {PROJECT['readme']}"


def wrong_in_sdist(sdist: Path) -> Iterator[str]:
    """The sdist is enough to build and test from, and packs nobody's virtual environment."""
    with open_tar(sdist) as archive:
        found = {name.split("/", 2)[1] for name in archive.getnames()}
    for name in {"pyproject.toml", "noxfile.py", "tests", "README.md", "LICENSE"} - found:
        yield f"the sdist has no {name}"
    included = PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    allowed = {pattern.strip("/") for pattern in included} | {"pyproject.toml", "PKG-INFO"}
    for name in found - allowed:
        if not name.endswith(".md") and name != ".gitignore":  # hatchling adds the latter
            yield f"the sdist holds {name}"


def with_implied(extra: str, metadata: Message) -> set[str]:
    """The extra and those that it brings (sandbox brings cli)."""
    installed = {extra}
    for requirement in map(Requirement, metadata.get_all("Requires-Dist", [])):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        if wanted and requirement.name == PROJECT["name"]:
            for implied in requirement.extras:
                installed |= with_implied(implied, metadata)
    return installed


def check_installed(session: nox.Session, what: str, extras: set[str]) -> None:
    """Install into an environment with nothing in it, then ask what a user would find."""
    venv = Path(session.create_tmp(), "empty")
    session.run("python", "-m", "venv", "--clear", str(venv))
    python = str(venv / ("Scripts" if os.name == "nt" else "bin") / "python")
    session.run(python, "-m", "pip", "install", "--quiet", what, external=True)
    session.run(python, "-m", "pip", "check", external=True)
    probe = ROOT / "tests" / "installed_wheel.py"
    session.run(python, "-I", str(probe), *sorted(extras), external=True)
