"""Imports point one way: adapters and sandbox to the core, and within the core backwards only."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
CORE = "wechatpay_kit"
SANDBOX = "wechatpay_kit_sandbox"

# Each module of the core imports only from those before it.
ORDER = (
    "errors",
    "log",
    "clocks",
    "processes",
    "models",
    "limits",
    "signer",
    "verifier",
    "decryptor",
    "merchant",
    "bills",
    "drafts",
    "media",
    "outcomes",
    "wire",
    "transport",
    "downloads",
    "client",
    "refresher",
    "records",
    "events",
    "hookspecs",
    "plugins",
    "store",
    "facts",
    "settlement",
    "receiver",
    "kit",
    "cli",
)
FRONT_DOOR = "__init__"  # wechatpay_kit/__init__ alone gathers from everywhere

PACKAGES = {
    path.name: path
    for pattern in ("core/*", "adapters/*/*", "sandbox/*")
    for path in sorted(ROOT.glob(pattern))
    if (path / "__init__.py").exists()
}
ADAPTERS = PACKAGES.keys() - {CORE, SANDBOX}


@dataclass(frozen=True)
class Import:
    importer: str  # dotted name of the module that imports
    target: str  # dotted name of what it imports, as far as it is a module
    where: str
    at_top: bool  # outside every function

    @property
    def package(self) -> str:
        return self.target.partition(".")[0]


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGES[package].rglob("*.py")):
        parts = path.relative_to(PACKAGES[package].parent).with_suffix("").parts
        yield ".".join(parts), path


def imports_of(package: str) -> list[Import]:
    return [found for name, path in modules(package) for found in imports_in(name, path)]


def imports_in(importer: str, path: Path) -> Iterator[Import]:
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    inside = {
        node for outer in ast.walk(tree) if isinstance(outer, functions) for node in ast.walk(outer)
    }
    for node in ast.walk(tree):
        where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        for target in targets(node, importer):
            if target.partition(".")[0] in PACKAGES:
                yield Import(importer, target, where, at_top=node not in inside)


def targets(node: ast.AST, importer: str) -> Iterator[str]:
    """`from a import b` names the module a.b or, where there is none, the module a."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = importer.split(".")[: -node.level] if node.level else []
        base = ".".join([*above, *filter(None, [node.module])])
        for alias in node.names:
            full = f"{base}.{alias.name}"
            yield full if is_module(full) else base


def is_module(dotted: str) -> bool:
    package, *rest = dotted.split(".")
    if package not in PACKAGES:
        return False
    path = PACKAGES[package].joinpath(*rest)
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def core_module(dotted: str) -> str:
    """`store` for wechatpay_kit.store.sqlite; the front door for the package itself."""
    return [*dotted.split("."), FRONT_DOOR][1]


def report(wrong: list[str]) -> None:
    assert not wrong, "\n" + "\n".join(dict.fromkeys(wrong))


def test_every_package_is_found():
    assert {CORE, SANDBOX, "wechatpay_kit_flask"} <= PACKAGES.keys()


def test_every_package_is_in_the_wheel_and_known_to_each_tool():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    folders = [path.relative_to(ROOT).as_posix() for path in PACKAGES.values()]
    sources = [path.parent.relative_to(ROOT).as_posix() for path in PACKAGES.values()]
    build = tool["hatch"]["build"]
    assert sorted(build["targets"]["wheel"]["packages"]) == sorted(folders)
    assert sorted(build["dev-mode-dirs"]) == sorted(tool["mypy"]["mypy_path"]) == sorted(sources)
    assert set(tool["ruff"]["src"]) == {*sources, "tests"}
    assert set(tool["mypy"]["packages"]) == set(tool["coverage"]["run"]["source_pkgs"])
    assert set(tool["mypy"]["packages"]) == PACKAGES.keys()


def test_every_core_module_has_its_place_in_the_order():
    known = {*ORDER, FRONT_DOOR}
    unplaced = sorted({core_module(name) for name, _ in modules(CORE)} - known)
    report([f"place {name!r} in ORDER of tests/test_imports.py" for name in unplaced])


def test_a_core_module_imports_only_from_those_before_it():
    rank = {name: place for place, name in enumerate([*ORDER, FRONT_DOOR])}
    wrong = []
    for found in imports_of(CORE):
        importer, target = core_module(found.importer), core_module(found.target)
        placed = found.package == CORE and {importer, target} <= rank.keys()
        if placed and rank[target] > rank[importer]:
            wrong.append(f"{found.where}: {importer} must not import {target}, which comes later")
    report(wrong)


def test_the_core_imports_neither_adapters_nor_sandbox():
    wrong = [found for found in imports_of(CORE) if found.package != CORE]
    report([f"{found.where}: the core must not import {found.target}" for found in wrong])


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
def test_an_adapter_imports_only_the_core(adapter):
    wrong = [found for found in imports_of(adapter) if found.package not in {adapter, CORE}]
    report([f"{found.where}: {adapter} must not import {found.target}" for found in wrong])


def test_the_sandbox_imports_adapters_only_inside_functions_of_its_demo():
    wrong = [
        found
        for found in imports_of(SANDBOX)
        if found.package in ADAPTERS
        and (found.at_top or not f"{found.importer}.".startswith(f"{SANDBOX}.demo."))
    ]
    report([f"{found.where}: no {found.target} here" for found in wrong])


def test_adapter_folders_do_not_shadow_the_frameworks_they_adapt():
    folders = [ROOT / "adapters", *(ROOT / "adapters").iterdir()]
    report(
        [f"remove {folder}/__init__.py" for folder in folders if (folder / "__init__.py").exists()]
    )


def test_importing_the_kit_imports_nothing_heavy():
    heavy = ("requests", "sqlite3", "flask", "starlette", "click")
    code = f"import sys, wechatpay_kit; print(*[m for m in {heavy} if m in sys.modules])"
    # Without coverage's own start-up in that process: it keeps its data in SQLite.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []


def test_relative_and_absolute_imports_are_read_alike():
    source = "from . import errors\nfrom .errors import ApiError\nimport wechatpay_kit.errors"
    found = [name for node in ast.parse(source).body for name in targets(node, f"{CORE}.signer")]
    assert found == [f"{CORE}.errors"] * 3
