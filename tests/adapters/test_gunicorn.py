"""The Flask adapter under gunicorn: an application loaded before the workers fork."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from adapters.serving import NOTIFY, answer, chunks, connected, head, post
from deliveries import KEYS, changed, envelope, signed, transaction
from wechatpay_kit_sandbox.environment import environment

WORKERS = 2


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A running gunicorn: its port, and the file of what its hooks were told."""
    folder = tmp_path_factory.mktemp("gunicorn")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = start(folder, listener)
        try:
            yield listener.getsockname()[1], folder / "told"
        finally:
            process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=20)
    assert process.returncode == 0, log
    assert "Traceback" not in log, log


def start(folder, listener):
    settings = environment(KEYS, "http://127.0.0.1:9", None)
    del settings["WECHATPAY_SANDBOX_CLOCK"]  # no sandbox runs: time is the machine's
    settings |= {
        "WECHATPAY_STORE": f"sqlite:///{folder / 'wechatpay.db'}",
        "TOLD": str(folder / "told"),
    }
    options = ["--preload", f"--workers={WORKERS}", "--threads=8"]
    options += [f"--bind=fd://{listener.fileno()}", f"--pythonpath={Path(__file__).parent}"]
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *options, "gunicorn_shop:app"],
        cwd=folder,
        env=os.environ | settings,
        pass_fds=[listener.fileno()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(path):
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split(" ") for line in lines]


def fresh(body=None):
    body = body or envelope(transaction())
    return signed(body, at=datetime.now(UTC)), body


def test_workers_that_forked_from_one_kit_fire_once(shop):
    port, path = shop
    answers = []
    with ThreadPoolExecutor(16) as threads:
        for _ in range(20):  # usually once; until both workers have had a share
            copies = [fresh() for _ in range(32)]
            answers += threads.map(lambda copy: post(port, *copy), copies)
            if len({pid for pid, *_ in told(path)}) == WORKERS:
                break
    assert {answer.status for answer in answers} <= {204, 503}
    assert post(port, *fresh()).status == 204
    assert len({pid for pid, *_ in told(path)}) == WORKERS
    hooks = [(hook, what) for _, hook, what in told(path)]
    assert hooks.count(("on_paid", "T1001")) == 1
    assert ("on_duplicate", "T1001") in hooks


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
@pytest.mark.parametrize("chunk", [None, 100])
def test_framing_and_content_type(shop, content_type, chunk):
    port, _ = shop
    headers, body = fresh()
    headers = changed(headers, "Content-Type", content_type)
    assert post(port, headers, body, chunk=chunk).status == 204
    assert post(port, headers, body + b" ", chunk=chunk).status == 401


@pytest.mark.parametrize("chunk", [None, 100])
@pytest.mark.parametrize(("size", "status"), [(8192, 204), (8193, 413)])
def test_limit(shop, size, status, chunk):
    port, _ = shop
    spare = size - len(envelope(transaction(), summary=""))
    sized = fresh(envelope(transaction(), summary="x" * spare))
    assert post(port, *sized, chunk=chunk).status == status


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "OPTIONS"])
def test_only_post(shop, method):
    port, _ = shop
    assert post(port, *fresh(), method=method).status == 405


def test_what_does_not_arrive_whole_is_told_to_nobody(shop):
    port, path = shop
    headers, body = fresh()
    before = told(path)
    announced = [*headers, ("Content-Length", str(len(body)))]
    chunked = [*headers, ("Transfer-Encoding", "chunked")]
    broken = [
        head("POST", NOTIFY, announced) + body[:-1],
        head("POST", NOTIFY, chunked) + chunks(body, 100)[:-50],
        head("POST", NOTIFY, chunked) + b"zz\r\n",
    ]
    for sent in broken:
        with connected(port) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert answer(connection).status == 400
    assert told(path) == before
