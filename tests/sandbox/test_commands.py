"""The command line: the group that finds commands, and the sandbox's own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import click
import pytest
from click.testing import CliRunner

from wechatpay_kit.cli import group
from wechatpay_kit_sandbox.commands import sandbox as sandbox_command


@pytest.fixture
def run():
    """Start ``python -m wechatpay_kit.cli …``; what still runs at the end is stopped."""
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "wechatpay_kit.cli", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def read_until(process, word):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            return "".join(lines)
    raise AssertionError("".join(lines) + process.stderr.read())


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_sandbox_runs_until_it_is_told_to_end(run, tmp_path, ending):
    env_file = tmp_path / "sandbox.env"
    process = run("sandbox", "--port", "0", "--env-file", str(env_file))
    shown = read_until(process, "/_sandbox/clock -d")
    assert f"set -a; . {env_file}; set +a" in shown
    assert "WECHATPAY_PRIVATE_KEY_PATH=" in shown
    assert "PRIVATE KEY-----" not in shown
    port = int(shown.partition("http://127.0.0.1:")[2].partition(" ")[0])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", "/_sandbox/clock")
    assert json.load(connection.getresponse())["rate"] == 1
    connection.close()
    process.send_signal(ending)
    _, errors = process.communicate(timeout=10)
    assert (process.returncode, errors) == (0, "")


def test_sandbox_without_a_file_prints_what_a_shell_can_paste(run, tmp_path):
    process = run("sandbox", "--port", "0", "--notify-url", "http://127.0.0.1:5000/n")
    shown = read_until(process, "/_sandbox/clock -d")
    script = tmp_path / "pasted.sh"
    script.write_text(f'{shown}\nprintf %s "$WECHATPAY_PUBLIC_KEY$WECHATPAY_NOTIFY_URL"\n')
    out = subprocess.run(["sh", script], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert out.stdout.endswith("http://127.0.0.1:5000/n")


def test_port_in_use_is_said_plainly(shared_sandbox):
    port = shared_sandbox.base_url.rpartition(":")[2]
    result = CliRunner().invoke(sandbox_command, ["--port", port])
    assert result.exit_code == 1
    assert "choose another with --port" in result.output


def test_env_file_that_cannot_be_written_is_said_plainly(tmp_path):
    path = tmp_path / "missing" / "sandbox.env"
    result = CliRunner().invoke(sandbox_command, ["--port", "0", "--env-file", str(path)])
    assert result.exit_code == 1
    assert "cannot write" in result.output


def test_host_that_others_reach_is_warned_of(monkeypatch):
    monkeypatch.setattr("wechatpay_kit_sandbox.commands._wait_for_signal", lambda: None)
    result = CliRunner().invoke(sandbox_command, ["--port", "0", "--host", "0.0.0.0"])
    assert result.exit_code == 0
    assert "Warning: 0.0.0.0 is not loopback" in result.output
    assert "WECHATPAY_BASE_URL='http://127.0.0.1:" in result.output


def commands(monkeypatch, **values):
    entries = {
        name: EntryPoint(name=name, value=value, group=group.GROUP)
        for name, value in values.items()
    }

    def entry_points(*, group, name=None):
        return EntryPoints(entry for entry in entries.values() if name in {None, entry.name})

    monkeypatch.setattr("wechatpay_kit.cli.group.entry_points", entry_points)


def test_command_that_is_not_available_says_why(monkeypatch):
    commands(
        monkeypatch,
        missing="no_such_module_here:command",
        gone="wechatpay_kit.cli:gone",
        odd="wechatpay_kit.cli:main",
    )
    for name, reason in (
        ("missing", "No module named"),
        ("gone", "gone"),
        ("odd", "not a click command"),
    ):
        result = CliRunner().invoke(group.wechatpay_kit, [name, "--port", "1"])
        assert result.exit_code == 1
        assert f"{name} is not available" in result.output
        assert reason in result.output
    listed = CliRunner().invoke(group.wechatpay_kit, ["--help"])
    assert listed.exit_code == 0
    assert "missing" in listed.output


def test_unknown_command(monkeypatch):
    commands(monkeypatch)
    result = CliRunner().invoke(group.wechatpay_kit, ["nothing"])
    assert result.exit_code == 2
    assert isinstance(group.wechatpay_kit, click.Group)


def without(*modules):
    """Run Python code in a process where ``modules`` are not installed."""
    blocked = "; ".join(f"sys.modules[{module!r}] = None" for module in modules)

    def run_code(code):
        return subprocess.run(
            [sys.executable, "-c", f"import sys; {blocked}; {code}"],
            env=os.environ | {"PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            check=False,
        )

    return run_code


def test_without_click_the_command_line_names_the_extra():
    out = without("click")("from wechatpay_kit.cli import main; main()")
    assert out.returncode == 1
    assert "pip install 'wechatpay-kit[cli]'" in out.stderr
    assert "Traceback" not in out.stderr


@pytest.mark.parametrize("module", ["starlette", "uvicorn"])
def test_without_its_extra_the_sandbox_names_it(module):
    out = without(module)("from wechatpay_kit_sandbox import Sandbox")
    assert out.returncode == 1
    assert out.stderr.splitlines()[-1] == (
        f"ImportError: the sandbox needs {module}, which is not installed: "
        "pip install 'wechatpay-kit[sandbox]'"
    )
    by_command = without(module)(
        "from wechatpay_kit.cli import main; sys.argv[1:] = ['sandbox']; main()"
    )
    assert by_command.returncode == 1
    assert "pip install 'wechatpay-kit[sandbox]'" in by_command.stderr
    assert "Traceback" not in by_command.stderr
