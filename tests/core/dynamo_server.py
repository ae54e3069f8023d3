"""A DynamoDB on loopback for tests: moto's server, once a process, and what can go wrong before it.

moto proves nothing about concurrency. Its transactions are copies of the whole table that are put
back where a condition fails, and lose what others wrote meanwhile; so one request is answered at a
time here. What is checked is that our requests say what they must, not that DynamoDB keeps them.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.client
import json
import os
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3.session
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

from wechatpay_kit import StoreError
from wechatpay_kit.store.dynamodb import DynamoStore, create_table

REGION = "cn-north-1"
os.environ.update(
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION=REGION,
    AWS_EC2_METADATA_DISABLED="true",
)


class _Silent(WSGIRequestHandler):
    def log(self, *args):
        pass


@functools.cache
def endpoint():
    """The address of this process's DynamoDB, started with the first call."""
    moto = DomainDispatcherApplication(create_backend_app)
    one_at_a_time = threading.Lock()

    def answer(environ, start_response):
        with one_at_a_time:
            return list(moto(environ, start_response))

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=_Silent)
    threading.Thread(target=server.serve_forever, name="moto", daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def table_of(folder):
    """The name of the table of one test, created where it does not exist yet."""
    name = f"t{hashlib.sha256(str(folder).encode()).hexdigest()[:16]}"
    with contextlib.suppress(StoreError):
        create_table(name, endpoint_url=endpoint())
    return name


def dynamo_backend(folder, store_time, **options):
    """Another handle on the one table of ``folder``, as another process would have.

    Without a margin for clocks, for tests are exact about when a lease ends; and patient, for a
    slow machine is no fault.
    """
    return DynamoStore(
        table_of(folder),
        endpoint_url=endpoint(),
        now=store_time,
        **{"skew": timedelta(0), "wait": timedelta(seconds=30)} | options,
    )


def dynamo_loses_records(folder):
    """The orders and refunds of ``folder`` are gone, as from a backup that was restored."""
    client = boto3.session.Session(region_name=REGION).client("dynamodb", endpoint_url=endpoint())
    table = table_of(folder)
    for item in client.scan(TableName=table)["Items"]:
        if item["sk"]["S"] == "record":
            client.delete_item(TableName=table, Key={name: item[name] for name in ("pk", "sk")})
    client.close()


class Between:
    """A proxy before :func:`endpoint`: ``operations`` is what passed, and ``faults`` what fails.

    ``faults[operation]`` are the faults of its next requests, one each: functions of the proxy's
    request and of the one that forwards it.
    """

    def __init__(self):
        self.operations = []
        self.bodies = []
        self.faults = {}
        self._released = threading.Event()
        between = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                operation = self.headers["X-Amz-Target"].rpartition(".")[2]
                between.operations.append(operation)
                between.bodies.append(json.loads(body))
                waiting = between.faults.get(operation) or between.faults.get("any")
                fault = waiting.pop(0) if waiting else None
                forward = functools.partial(between._forward, dict(self.headers), body)
                answer = forward() if fault is None else fault(forward)
                if answer is None:
                    self.close_connection = True
                    return
                status, content, request_id = answer
                self.send_response_only(status)
                if request_id:
                    self.send_header("x-amzn-RequestId", request_id)
                self.send_header("Content-Type", "application/x-amz-json-1.0")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args):
                pass

            def handle(self):
                with contextlib.suppress(ConnectionError):  # the client gave up, as wanted
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _forward(self, headers, body):
        connection = http.client.HTTPConnection(endpoint().partition("//")[2], timeout=10)
        try:
            kept = {n: v for n, v in headers.items() if n.lower() not in {"host", "connection"}}
            connection.request("POST", "/", body, kept)
            response = connection.getresponse()
            return response.status, response.read(), response.getheader("x-amzn-RequestId")
        finally:
            connection.close()

    # Faults

    @staticmethod
    def answer_lost(forward):
        """It is done, and nobody hears of it."""
        forward()

    @staticmethod
    def request_lost(forward):
        """It never arrives."""

    def stalls(self, forward):
        """Nothing is said for as long as the test runs."""
        self._released.wait(30)

    @staticmethod
    def refused(code, *, reasons=(), status=400, message="told to"):
        """DynamoDB answers an error; ``reasons`` are those of a cancelled transaction."""
        said = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message}
        if reasons:
            said["CancellationReasons"] = [{"Code": reason, "Message": ""} for reason in reasons]

        return lambda _forward: (status, json.dumps(said).encode(), "told-to")
