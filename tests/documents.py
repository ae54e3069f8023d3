"""The Python samples of a document, run as a reader would paste them: one after the other."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def python_of(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def names_of(name: str, *replacements: tuple[str, str]) -> dict[str, object]:
    """What the samples define, each of ``replacements`` made in one of them."""
    samples = "\n\n".join(python_of(name))
    for before, after in replacements:
        assert before in samples, before
        samples = samples.replace(before, after)
    names: dict[str, object] = {"__name__": name}
    exec(compile(samples, name, "exec"), names)
    return names
