"""Worker processes that tests start, pause and kill by their id; they talk in lines of JSON."""

from __future__ import annotations

import base64
import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path

from deliveries import KEYS, NOW, delivery
from wechatpay_kit_sandbox.environment import environment

WORKERS = Path(__file__).parent / "workers"
PATIENCE = 30  # seconds; a worker that says nothing for so long hangs


class Worker:
    """One process running ``workers/{script}.py``; use it as a context manager."""

    def __init__(self, script, **job):
        self._process = subprocess.Popen(
            [sys.executable, str(WORKERS / f"{script}.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        self.pid = self._process.pid
        self.tell(job)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._process.poll() is None:
            self.signal(signal.SIGKILL)
        self._process.wait(PATIENCE)
        self._process.stdin.close()
        self._process.stdout.close()

    def tell(self, said):
        self._process.stdin.write(json.dumps(said).encode() + b"\n")
        self._process.stdin.flush()

    def hear(self):
        """What the worker says next; fails if it says nothing, or dies."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE), "the worker hangs"
        line = self._process.stdout.readline()
        assert line, f"the worker died with {self._process.wait(PATIENCE)}"
        return json.loads(line)

    def signal(self, number):
        os.kill(self.pid, number)

    def stop(self):
        """Pause it, and return when it stands still."""
        self.signal(signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def wait(self):
        """Its exit status; negative where a signal ended it."""
        return self._process.wait(PATIENCE)


def receiving(**more):
    """The part of a job that makes a kit which only receives, at the deliveries' own time."""
    settings = environment(KEYS, "http://127.0.0.1:9", "https://shop.example/wechatpay/notify")
    del settings["WECHATPAY_SANDBOX_CLOCK"]
    return {"environ": settings, "clock": NOW.timestamp(), **more}


def as_job(*plaintexts, event_type="TRANSACTION.SUCCESS"):
    """Deliveries as JSON, for a worker."""
    made = [delivery(plaintext, event_type) for plaintext in plaintexts]
    return [{"headers": headers, "body": base64.b64encode(body).decode()} for headers, body in made]
