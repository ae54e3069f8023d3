"""The documents say what the code does: samples run, names and links resolve, both languages agree.

Whatever in them can be checked by machine is checked here, so that a change of the code that a
document tells otherwise fails a test.
"""

from __future__ import annotations

import ast
import inspect
import logging
import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import NamedTuple

import pytest
import requests
from flask import Flask

import wechatpay_kit
from deliveries import KEYS
from wechatpay_kit import ConfigError, Kit, Merchant, errors, hookimpl
from wechatpay_kit.hookspecs import Hooks
from wechatpay_kit.plugins import Plugins
from wechatpay_kit.receiver import REFUSALS
from wechatpay_kit_sandbox import Sandbox
from wechatpay_kit_sandbox.environment import environment

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TWINS = [
    (path, path.with_suffix(".zh-CN.md"))
    for path in DOCUMENTS
    if not path.name.endswith(".zh-CN.md") and path.with_suffix(".zh-CN.md").exists()
]
LANGUAGES = (".md", ".zh-CN.md")
ENVIRONMENT = "WECHATPAY_"


class Block(NamedTuple):
    """A fenced block of a document."""

    path: Path
    line: int
    language: str
    text: str


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks_of(path: Path) -> list[Block]:
    text = path.read_text(encoding="utf-8")
    return [
        Block(path, text[: found.start()].count("\n") + 1, found[1], found[2])
        for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]


def prose_of(path: Path) -> str:
    """The document without its fenced blocks."""
    return re.sub(
        r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )


def headings_of(path: Path) -> list[tuple[int, str]]:
    found = re.findall(r"^(#+) (.+)$", prose_of(path), re.MULTILINE)
    return [(len(marks), title) for marks, title in found]


def anchor(title: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    kept = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title).strip().lower())
    return kept.replace(" ", "-")


def section(path: Path, title: str) -> str:
    """The text under a heading, up to the next of its level."""
    text = path.read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{name_of(path)} has no section {title}"
    return found[1]


def label(item: object) -> str:
    if isinstance(item, Block):
        return f"{name_of(item.path)}:{item.line}"
    return name_of(item) if isinstance(item, Path) else str(item)


BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]
PYTHON = [block for block in BLOCKS if block.language == "python"]
WITH_PLUGINS = [
    block for block in PYTHON if "@hookimpl" in block.text and "Flask(" not in block.text
]


# Samples


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
@pytest.mark.parametrize(
    ("language", "example"),
    [("python", "examples/flask_shop.py"), ("js", "examples/miniprogram/pay.js")],
)
def test_readme_shows_the_example_byte_for_byte(readme, language, example):
    shown = [block.text for block in blocks_of(ROOT / readme) if block.language == language]
    assert shown == [read(example)]


def test_the_flask_app_in_the_readme_is_under_30_lines():
    assert len(read("examples/flask_shop.py").splitlines()) < 30


@pytest.mark.parametrize("block", PYTHON, ids=label)
def test_python_in_the_documents_runs(block, a_shop):
    names: dict[str, object] = {"__name__": "document"}
    exec(compile(block.text, label(block), "exec"), names)
    for name in ("create_app", "make_kit", "make_kits", "add_merchants"):
        if name in names:
            parameters = inspect.signature(names[name]).parameters
            if parameters.keys() <= a_shop.keys():
                assert names[name](*(a_shop[parameter] for parameter in parameters))


@pytest.fixture
def a_shop(monkeypatch, tmp_path):
    """The environment of two merchants, and what the documents' functions are called with."""
    settings = environment(KEYS, "http://127.0.0.1:9", "http://127.0.0.1:9/wechatpay/notify")
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(f"SHOP2_{name}", value)
    monkeypatch.chdir(tmp_path)  # where a sandbox's store is by default
    monkeypatch.syspath_prepend(ROOT / "examples")
    logger = logging.getLogger("wechatpay_kit")
    level = logger.level
    yield {"plugins": [Listener()], "app": Flask("shop")}
    logger.setLevel(level)


@pytest.mark.parametrize("block", WITH_PLUGINS, ids=label)
def test_plugins_in_the_documents_register(block):
    names: dict[str, object] = {"__name__": "document"}
    exec(compile(block.text, label(block), "exec"), names)
    found = [
        value
        for value in names.values()
        if inspect.isclass(value) and value.__module__ == "document" and hooks_in(value)
    ]
    assert found
    for plugin in found:
        Plugins().register(instance(plugin))


def hooks_in(kind: type) -> list[str]:
    return [n for n in dir(kind) if hasattr(getattr(kind, n), "wechatpay_kit_impl")]


def instance(plugin: type) -> object:
    """An object of the plugin; what its constructor needs has defaults, but for these."""
    known = {"merchant": MERCHANT, "totals": {"T10001": 100}}
    needed = [
        known[p.name]
        for p in inspect.signature(plugin).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    return plugin(*needed)


class _Account(NamedTuple):
    mchid: str


MERCHANT = _Account("1900000001")


@pytest.mark.parametrize("suffix", LANGUAGES)
def test_the_test_in_the_sandbox_document_passes(suffix):
    (block,) = [b for b in blocks_of(ROOT / f"docs/sandbox{suffix}") if b.language == "python"]
    names: dict[str, object] = {"__name__": "document"}
    exec(compile(block.text, label(block), "exec"), names)
    names["test_a_lost_notification_is_found_by_query"]()


@pytest.mark.parametrize("suffix", LANGUAGES)
def test_every_curl_of_the_sandbox_document_works(suffix, tmp_path):
    with Sandbox(notify_url="http://127.0.0.1:9/wechatpay/notify") as sandbox:
        kit = Kit(
            Merchant.from_env(environ=sandbox.environment()),
            plugins=[Listener()],
            store=f"sqlite:///{tmp_path / 'shop.db'}",
        )
        for number in ("T10001", "T10002"):
            kit.create_order(out_trade_no=number, total=100, description="QQ", openid="oPayer")
        calls = list(curls(ROOT / f"docs/sandbox{suffix}"))
        assert len(calls) >= 13
        for method, path, body in calls:
            if path.startswith("/_sandbox/refunds/") and not sandbox.refunds():
                kit.create_refund(
                    out_trade_no="T10001", out_refund_no="R10001", refund=30, total=100
                )
            notification = sandbox.notifications()[-1].id if sandbox.notifications() else ""
            url = sandbox.base_url + path.replace("$ID", notification)
            answer = requests.request(method, url, data=body, timeout=10)
            assert answer.status_code == 200, (method, path, answer.text)
        kit.close()


class Listener:
    @hookimpl
    def on_paid(self, event):
        pass


def curls(path: Path) -> Iterator[tuple[str, str, str | None]]:
    """Method, path and body of each curl line."""
    lines = [
        line for b in blocks_of(path) if b.language == "console" for line in b.text.split("\n")
    ]
    for line in lines:
        words = shlex.split(line)
        if words and words[0] == "curl":
            options = dict(pairwise(words))
            (url,) = (word for word in words if word.startswith("http://127.0.0.1:8920/"))
            yield (
                options.get("-X", "GET"),
                url.removeprefix("http://127.0.0.1:8920"),
                options.get("-d"),
            )


# Names


class Asked(Mapping[str, str]):
    """An environment without anything, that remembers what it was asked for."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("suffix", LANGUAGES)
def test_configuration_lists_the_variables_that_are_read_and_no_others(suffix):
    environ = Asked()
    with pytest.raises(ConfigError):
        Merchant.from_env(environ=environ, needs_store=True)
    text = read(f"docs/configuration{suffix}")
    listed = set(re.findall(rf"^\| `({ENVIRONMENT}\w+)` \|", text, re.MULTILINE))
    assert listed == environ.names


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_documents_name_no_variable_that_is_not_read(path):
    environ = Asked()
    with pytest.raises(ConfigError):
        Merchant.from_env(environ=environ, needs_store=True)
    named = set(
        re.findall(rf"(?<![A-Z_]){ENVIRONMENT}[A-Z0-9]+(?:_[A-Z0-9]+)*", read(name_of(path)))
    )
    assert named <= environ.names


def hook_names() -> list[str]:
    return [n for n, value in vars(Hooks).items() if hasattr(value, "wechatpay_kit_spec")]


@pytest.mark.parametrize("suffix", LANGUAGES)
@pytest.mark.parametrize("hook", hook_names())
def test_every_hook_has_a_section_with_its_signature_and_a_plugin(hook, suffix):
    text = section(ROOT / f"docs/hooks{suffix}", hook)
    (argument,) = list(inspect.signature(getattr(Hooks, hook)).parameters)[1:]
    assert re.search(rf"^`{hook}\(self, {argument}: ", text, re.MULTILINE)
    assert re.search(rf"@hookimpl\n +def {hook}\(", text)


@pytest.mark.parametrize("suffix", LANGUAGES)
@pytest.mark.parametrize("name", [n for n in errors.__all__ if inspect.isclass(getattr(errors, n))])
def test_every_exception_is_in_the_errors_document(name, suffix):
    assert name in read(f"docs/errors{suffix}")
    assert name == "WeChatPayError" or name in section_tables(f"docs/errors{suffix}")
    assert name in wechatpay_kit.__all__


def section_tables(name: str) -> str:
    lines = read(name).splitlines()
    return "\n".join(line for line in lines if line.startswith("| `") or "`ApiError`" in line)


@pytest.mark.parametrize("suffix", LANGUAGES)
def test_every_refusal_is_in_the_table_of_answers_with_its_status(suffix):
    rows = [line for line in read(f"docs/once{suffix}").splitlines() if line.startswith("| ")]
    for reason, refusal in REFUSALS.items():
        (row,) = (row for row in rows if f"`{reason}`" in row)
        assert row.rstrip("| ").endswith(str(refusal.status))


# Log lines


def logged() -> dict[str, set[str]]:
    """The fields of each log line, as the code names them."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "core/wechatpay_kit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "log.write":
                fields = {k.arg for k in node.keywords if k.arg and k.arg != "exc_info"}
                line = ast.literal_eval(node.args[1])
                found.setdefault(line, set()).update(fields)
    return found


def said_of_deliveries() -> set[str]:
    """What a delivery's line gathers before it is written."""
    tree = ast.parse(read("core/wechatpay_kit/receiver.py"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    said = [call for call in calls if ast.unparse(call.func).endswith(".said")]
    return {"mchid"} | {k.arg for call in said for k in call.keywords if k.arg}


@pytest.mark.parametrize("suffix", LANGUAGES)
def test_every_field_that_is_logged_is_documented_and_no_other(suffix):
    fields = logged()
    fields["delivery"] |= said_of_deliveries()
    for line, names in fields.items():
        table = section(ROOT / f"docs/logging{suffix}", line)
        cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", "".join(cells))) == names, line


@pytest.mark.parametrize("suffix", LANGUAGES)
def test_sample_log_lines_have_documented_fields_only(suffix):
    fields = logged()
    fields["delivery"] |= said_of_deliveries()
    for block in blocks_of(ROOT / f"docs/logging{suffix}"):
        if block.language == "text":
            for sample in block.text.splitlines():
                line = sample.split()[2]
                unquoted = re.sub(r"""='[^']*'|="[^"]*\"""", "=…", sample)
                assert set(re.findall(r" (\w+)=", unquoted)) <= fields[line], sample


# Links and languages


@pytest.mark.parametrize("path", DOCUMENTS, ids=label)
def test_relative_links_and_anchors_resolve(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        to = (path.parent / file).resolve() if file else path
        assert to.exists(), f"{name_of(path)} links to {target}"
        if fragment:
            assert fragment in {anchor(title) for _, title in headings_of(to)}, target


def test_every_document_has_its_chinese_twin_but_those_for_developers():
    english_only = {"CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"}
    alone = {
        name_of(path)
        for path in DOCUMENTS
        if not path.name.endswith(".zh-CN.md") and not path.with_suffix(".zh-CN.md").exists()
    }
    assert {name for name in alone if not name.startswith("docs/adr/")} == english_only


@pytest.mark.parametrize(("english", "chinese"), TWINS, ids=label)
def test_twins_have_the_same_structure(english, chinese):
    assert [n for n, _ in headings_of(english)] == [n for n, _ in headings_of(chinese)]
    assert rows_of(english) == rows_of(chinese)
    assert listed_in(english) == listed_in(chinese)


@pytest.mark.parametrize(("english", "chinese"), TWINS, ids=label)
def test_twins_have_the_same_samples_comments_aside(english, chinese):
    pairs = zip_longest(blocks_of(english), blocks_of(chinese))
    for one, other in pairs:
        assert one is not None
        assert other is not None
        assert one.language == other.language
        assert without_comments(one) == without_comments(other), label(other)


@pytest.mark.parametrize(("english", "chinese"), TWINS, ids=label)
def test_chinese_documents_link_to_chinese_ones(english, chinese):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(chinese)):
        file = target.partition("#")[0]
        if file and not re.match(r"[a-z]+:", file):
            twin = (chinese.parent / file).resolve().with_suffix(".zh-CN.md")
            assert not twin.exists() or twin == chinese, f"{name_of(chinese)} links to {target}"


def rows_of(path: Path) -> list[int]:
    """How many cells each table row has."""
    lines = prose_of(path).splitlines()
    return [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")]


def listed_in(path: Path) -> int:
    return len(re.findall(r"^(?:- |\d+\. )", prose_of(path), re.MULTILINE))


def without_comments(block: Block) -> str:
    if block.language == "python":
        return ast.unparse(ast.parse(textwrap.dedent(block.text)))
    return re.sub(r"(^|\s+)(#|//) .*$", "", block.text, flags=re.MULTILINE)
