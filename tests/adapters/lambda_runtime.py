"""Lambda's Runtime API on loopback, and the official runtime client run against it.

As the service does: a process is an execution environment and takes one event at a time; it is
killed at the deadline; the next event then finds a new one.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

WORKERS = Path(__file__).with_name("workers")
TESTS = WORKERS.parents[1]
INIT_PATIENCE = 60.0  # seconds; a slow machine is no fault


class FunctionError(Exception):
    """The handler raised; ``kind`` is the exception's class."""

    def __init__(self, said: dict[str, Any]) -> None:
        self.kind, self.message = said["errorType"], said["errorMessage"]
        super().__init__(f"{self.kind}: {self.message}")


class InitError(FunctionError):
    """The module did not import; the process ended."""


class TimedOutError(Exception):
    """The deadline passed and the process was killed."""


class LambdaFunction:
    """A deployed function: ``handler`` is ``module.attribute`` of a module in ``folder``.

    ``timeout`` in seconds. ``environments`` counts the cold starts. What the processes printed is
    in the file ``log``, as CloudWatch would get it with the JSON log format.
    """

    def __init__(
        self,
        handler: str,
        log: Path,
        env: dict[str, str],
        *,
        timeout: float = 30.0,
        folder: Path = WORKERS,
    ) -> None:
        self._handler = handler
        self._timeout = timeout
        self.log = log
        self._env = {name: value for name, value in os.environ.items() if _is_kept(name)} | {
            "AWS_LAMBDA_FUNCTION_NAME": "notify",
            "AWS_LAMBDA_LOG_FORMAT": "JSON",
            "AWS_LAMBDA_LOG_LEVEL": "INFO",
            "AWS_EXECUTION_ENV": "AWS_Lambda_python3.12",
            "PYTHONPATH": os.pathsep.join(map(str, (folder, TESTS))),
            **env,
        }
        self.environments = 0
        self._environment: _Environment | None = None

    def invoke(self, event: Any) -> Any:
        """What the handler answers to one event."""
        if self._environment is None:
            self.environments += 1
            self._environment = _Environment(self._handler, self._env, self.log)
        environment = self._environment
        environment.offer(event, self._timeout)
        try:
            return environment.answer()
        except BaseException as error:
            if isinstance(error, InitError) or not isinstance(error, FunctionError):
                self.stop()
            raise

    def stop(self) -> None:
        """End the environment; the next event starts cold."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines that are JSON."""
        text = self.log.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def _is_kept(name: str) -> bool:
    return not name.startswith(("AWS_", "WECHATPAY_"))


class _Said(NamedTuple):
    what: str  # next, response, error, init_error, exit
    payload: Any


class _Environment:
    """One process, and the Runtime API that it talks to."""

    def __init__(self, handler: str, env: dict[str, str], log: Path) -> None:
        self.events: queue.Queue[tuple[bytes, float] | None] = queue.Queue()
        self.said: queue.Queue[_Said] = queue.Queue()
        self._server = _RuntimeApi(self)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "awslambdaric", handler],
                env=env | {"AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self._server.server_port}"},
                stdout=output,
                stderr=output,
            )
        threading.Thread(target=self._watch, daemon=True).start()

    def offer(self, event: Any, timeout: float) -> None:
        self.events.put((json.dumps(event, ensure_ascii=False).encode(), timeout))

    def answer(self) -> Any:
        patience = INIT_PATIENCE
        while True:
            try:
                said = self.said.get(timeout=max(0.0, patience))
            except queue.Empty:
                raise TimedOutError from None
            if said.what == "next":
                patience = said.payload - time.time()
            elif said.what == "response":
                return said.payload
            elif said.what == "exit":
                raise RuntimeError(f"the process ended with {said.payload}")
            else:
                raise (InitError if said.what == "init_error" else FunctionError)(said.payload)

    def close(self) -> None:
        """At once, as Lambda does at the deadline."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self.events.put(None)
        self._server.shutdown()
        self._server.server_close()

    def _watch(self) -> None:
        self.said.put(_Said("exit", self._process.wait()))


class _RuntimeApi(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, environment: _Environment) -> None:
        super().__init__(("127.0.0.1", 0), _Call)
        self.environment = environment


class _Call(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece: in two, each call waits 40 ms for an ACK
    server: _RuntimeApi

    def do_GET(self) -> None:
        """``/2018-06-01/runtime/invocation/next``: waits for an event; its time begins here."""
        event = self.server.environment.events.get()
        if event is None:
            self.close_connection = True
            return
        body, timeout = event
        deadline = time.time() + timeout
        self.server.environment.said.put(_Said("next", deadline))
        self._reply(
            200,
            body,
            {
                "Content-Type": "application/json",
                "Lambda-Runtime-Aws-Request-Id": str(uuid.uuid4()),
                "Lambda-Runtime-Deadline-Ms": str(int(deadline * 1000)),
                "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:1:function:notify",
            },
        )

    def do_POST(self) -> None:
        """``…/invocation/{id}/response``, ``…/invocation/{id}/error`` or ``…/init/error``."""
        payload = json.loads(self._body())
        what = "init_error" if "/init/" in self.path else self.path.rpartition("/")[2]
        self._reply(202, b'{"status":"OK"}', {"Content-Type": "application/json"})
        self.server.environment.said.put(_Said(what, payload))

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass
