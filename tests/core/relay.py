"""A relay between a kit and a sandbox: it writes down what passes, and can fail in between."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit


class Passed(NamedTuple):
    method: str
    target: str
    body: bytes


class Relay:
    """Forwards to ``sandbox``; ``passed`` is what went through, as bytes.

    ``events`` are functions for the next requests, one each: called with the request and what the
    sandbox answered, they return the answer to give, or None to hang up without one.
    """

    def __init__(self, sandbox):
        self.passed = []
        self.events = []
        self._sandbox = sandbox
        relay = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self):
                length = int(self.headers.get("Content-Length") or 0)
                request = Passed(self.command, self.path, self.rfile.read(length))
                relay.passed.append(request)
                answer = relay.forward(request, self.headers)
                if relay.events:
                    answer = relay.events.pop(0)(request, answer)
                if answer is None:
                    self.close_connection = True
                    return
                status, headers, body = answer
                self.send_response_only(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = relay  # noqa: N815 - http.server's names

            def log_message(self, *args):
                pass

            def handle(self):
                with contextlib.suppress(ConnectionError):  # the client was killed, as wanted
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def environment(self):
        return self._sandbox.environment() | {"WECHATPAY_BASE_URL": self.url}

    def posted(self, path=""):
        """The bodies that were posted to ``path``, in order."""
        return [p.body for p in self.passed if p.method == "POST" and path in p.target]

    def forward(self, request, headers):
        connection = http.client.HTTPConnection(urlsplit(self._sandbox.base_url).netloc, timeout=10)
        try:
            connection.putrequest(
                request.method, request.target, skip_host=True, skip_accept_encoding=True
            )
            for name, value in headers.items():
                if name != "Connection":
                    connection.putheader(name, value)
            connection.endheaders(request.body)
            response = connection.getresponse()
            kept = [(n, v) for n, v in response.getheaders() if n not in {"connection", "date"}]
            return response.status, kept, response.read()
        finally:
            connection.close()

    # Events

    def hang_up(self, request, answer):
        """The gateway has done it; nobody hears of it."""

    def refuse(self, status, code):
        """The gateway refuses, in a signed answer (whatever the sandbox itself said)."""

        def event(request, answer):
            body = json.dumps({"code": code, "message": "told to"}).encode()
            serial = self._sandbox.keys.public_key.serial
            signature = self._sandbox.seal.headers(body, serial)
            headers = {"Content-Length": str(len(body)), "Content-Type": "application/json"}
            return status, list((headers | dict(signature)).items()), body

        return event
