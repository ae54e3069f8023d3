"""Ask an installed wheel what a user would ask: what imports, and what does the rest say?

Run by `nox -s build` with the interpreter of an environment that holds the wheel and nothing
else; the arguments are the extras it was installed with. Not a test module: pytest has no
place in that environment.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

DISTRIBUTION = "wechatpay-kit"

# What is not imported with its package; each works, or says by itself which extra it wants.
LAZY = (
    "wechatpay_kit:SqliteStore",
    "wechatpay_kit:DynamoStore",
    "wechatpay_kit.store.dynamodb:DynamoStore",
    "wechatpay_kit_sandbox:Sandbox",
    "wechatpay_kit_sandbox:generate_keys",
    "wechatpay_kit_sandbox.testing:Deliveries",
)
SUITE = "wechatpay_kit_sandbox.testing.conformance"  # wants pytest, which is no extra's


def main(installed: set[str]) -> list[str]:
    """What is wrong, a sentence each."""
    extras = set(importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra", []))
    missing = extras - installed
    names = own_packages()
    if "all" in installed:
        missing = set()
        names += [module for package in names for module in modules_of(package)]
    names = [name for name in names if name != SUITE]
    problems = [wrong_with_import(name, missing) for name in [*names, *LAZY]]
    problems.append(wrong_with_suite())
    problems += [wrong_with_command(line, missing) for line in command_lines()]
    return [problem for problem in problems if problem]


def command_lines() -> list[list[str]]:
    """The command's help, and that of each command which another package adds to it."""
    added = importlib.metadata.entry_points(group="wechatpay_kit.commands")
    return [["--help"], *([command.name, "--help"] for command in added)]


def own_packages() -> list[str]:
    files = importlib.metadata.files(DISTRIBUTION) or []
    return sorted({file.parts[0] for file in files if file.name == "py.typed"})


def modules_of(package: str) -> list[str]:
    spec = importlib.util.find_spec(package)
    path = spec.submodule_search_locations if spec else None
    return [found.name for found in pkgutil.walk_packages(path or [], f"{package}.")]


def wrong_with_import(name: str, missing: set[str]) -> str | None:
    """A module, or ``module:attribute``, imports; or says which missing extra it wants."""
    module, _, attribute = name.partition(":")
    try:
        found = importlib.import_module(module)
        getattr(found, attribute or "__name__")
    except ImportError as error:
        if named_extra(str(error)) in missing:
            print(f"  {name}: asks for its extra: {error}")
            return None
        return f"import {name}: {error!r} names none of the missing extras {sorted(missing)}"
    print(f"  {name}: imports")
    return None


def wrong_with_suite() -> str | None:
    try:
        importlib.import_module(SUITE)
    except ImportError as error:
        return None if "pip install pytest" in str(error) else f"import {SUITE}: {error!r}"
    return f"{SUITE} imports where there is no pytest"


def wrong_with_command(arguments: list[str], missing: set[str]) -> str | None:
    """The console script works, or says which of the extras that are missing it wants."""
    line = " ".join([DISTRIBUTION, *arguments])
    script = Path(sys.executable).with_name(DISTRIBUTION)
    done = subprocess.run([script, *arguments], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if done.returncode == 0 and "Usage:" in said:
        print(f"  {line}: works")
        return None
    if done.returncode != 0 and named_extra(said) in missing and "Traceback" not in said:
        print(f"  {line}: asks for its extra: {said.strip()}")
        return None
    return f"{line}: exit {done.returncode}, said: {said}"


def named_extra(text: str) -> str | None:
    found = re.search(rf"{DISTRIBUTION}\[(\w+)\]", text)
    return found[1] if found else None


if __name__ == "__main__":
    if wrong := main(set(sys.argv[1:])):
        sys.exit("\n".join(wrong))
