"""Every adapter passes the one suite, behind real servers: what they answer is the same to a byte.

The suite is ``wechatpay_kit_sandbox.testing``'s; here are the ways to mount its shop.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from adapters import asgi, serving
from adapters.conformance_flask import make_app
from adapters.lambda_events import KINDS, headers_of
from adapters.lambda_runtime import LambdaFunction
from documents import names_of
from wechatpay_kit_sandbox.testing import AdapterConformance, Reply, http_sender
from wechatpay_kit_starlette import notify_routes


@contextmanager
def flask_on_werkzeug(shop):
    with serving.served(make_app(shop)) as port:
        yield http_sender(port)


@contextmanager
def flask_on_gunicorn(shop):
    log = shop.folder / "log.txt"  # no pipe: nobody reads while it serves
    with socket.create_server(("127.0.0.1", 0)) as listener, log.open("wb") as output:
        options = ["--workers=2", "--threads=4", f"--bind=fd://{listener.fileno()}"]
        options += [f"--pythonpath={Path(__file__).parent}", "conformance_flask:app()"]
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *options],
            cwd=shop.folder,
            env=os.environ | {"CONFORMANCE_SHOP": str(shop.folder)},
            pass_fds=[listener.fileno()],
            stdout=subprocess.DEVNULL,
            stderr=output,
        )
        try:
            yield http_sender(listener.getsockname()[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
    assert process.returncode == 0, log.read_text(encoding="utf-8")


@contextmanager
def starlette_on_uvicorn(shop):
    routes = [Mount("/wechatpay", routes=notify_routes(shop.kit()))]
    with asgi.served(Starlette(debug=shop.debug, routes=routes)) as port:
        yield http_sender(port)


@contextmanager
def lambda_behind(kind, shop):
    env = {"CONFORMANCE_SHOP": str(shop.folder)}
    if shop.debug:
        env |= {"DEBUG": "1", "TESTING": "1"}
    log = shop.folder / "log.txt"
    function = LambdaFunction("conformance_lambda.handler", log, env)

    def send(method, path, headers, body):
        path = path.partition("?")[0]  # an event has the query beside it
        # What is text may come as it is, or encoded; what is none can only come encoded.
        encoded = len(body) % 2 == 0 or not is_text(body)
        event = KINDS[kind](headers, body, method=method, path=path, encoded=encoded)
        answer = function.invoke(event)
        return Reply(answer["statusCode"], headers_of(answer).items(), answer["body"].encode())

    try:
        yield send
    finally:
        function.stop()
    assert function.environments == 1, log.read_text(encoding="utf-8")


def is_text(body):
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def adapter_of_the_document(shop):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WSGIRequestHandler, "log_message", lambda *_: None)
        with names_of("docs/adapters.md")["mounted"](shop) as send:
            yield send


MOUNTS = {
    "flask-werkzeug": flask_on_werkzeug,
    "flask-gunicorn": flask_on_gunicorn,
    "starlette-uvicorn": starlette_on_uvicorn,
    "document-wsgiref": adapter_of_the_document,
    **{f"lambda-{kind}": partial(lambda_behind, kind) for kind in KINDS},
}


@pytest.fixture(scope="module", params=MOUNTS.values(), ids=MOUNTS)
def mount(request):
    return request.param


class TestConformance(AdapterConformance):
    @pytest.fixture
    def doubled_headers_arrive(self, mount):
        """A load balancer without multi-value headers hands on the last of two."""
        return mount is not MOUNTS["lambda-alb_single"]
