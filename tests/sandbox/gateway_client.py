"""A signed HTTP client and a receiver for the sandbox's tests.

Written from the protocol's description on `cryptography` and `http.client` alone, so that neither
the kit nor an HTTP library can hide a fault: what is given here goes over the wire byte for byte.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

SCHEME = "WECHATPAY2-SHA256-RSA2048"


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class GatewayClient:
    """Signs as the merchant of an environment; every part can be overridden."""

    def __init__(self, environment):
        self.env = environment
        self.mchid = environment["WECHATPAY_MCHID"]
        self.appid = environment["WECHATPAY_APPID"]
        self.key_id = environment["WECHATPAY_PUBLIC_KEY_ID"]
        self.address = urlsplit(environment["WECHATPAY_BASE_URL"])
        self.key = load_pem_private_key(environment["WECHATPAY_PRIVATE_KEY"].encode(), None)
        certificate = x509.load_pem_x509_certificate(
            environment["WECHATPAY_PLATFORM_CERT"].encode()
        )
        self.certificate_serial = f"{certificate.serial_number:040X}"
        self.platform_keys = {
            self.key_id: load_pem_public_key(environment["WECHATPAY_PUBLIC_KEY"].encode()),
            self.certificate_serial: certificate.public_key(),
        }

    # Requests

    def authorization(self, method, target, body, *, signed=None, scheme=SCHEME, **overrides):
        fields = {
            "mchid": self.mchid,
            "nonce_str": secrets.token_hex(16),
            "timestamp": str(int(time.time())),
            "serial_no": self.env["WECHATPAY_SERIAL_NO"],
        } | overrides
        message = signed or b"\n".join(
            [
                method.encode(),
                target.encode(),
                fields["timestamp"].encode(),
                fields["nonce_str"].encode(),
                body,
                b"",
            ]
        )
        fields.setdefault(
            "signature", base64.b64encode(self.key.sign(message, PKCS1v15(), SHA256())).decode()
        )
        return f"{scheme} " + ",".join(f'{name}="{value}"' for name, value in fields.items())

    def send(self, method, target, body=b"", headers=None, *, signed_body=None, **overrides):
        """One request as given; ``headers`` replace the usual ones, None leaves one out."""
        usual = {
            "Authorization": self.authorization(
                method, target, body if signed_body is None else signed_body, **overrides
            ),
            "Accept": "application/json",
            "User-Agent": "gateway-client/1",
            "Wechatpay-Serial": self.key_id,
        }
        if body:
            usual["Content-Type"] = "application/json"
        named = {
            name: value for name, value in (usual | (headers or {})).items() if value is not None
        }
        return exchange(self.address, method, target, body, named)

    def post(self, target, document, **kwargs):
        return self.send(
            "POST", target, json.dumps(document, ensure_ascii=False).encode(), **kwargs
        )

    def get(self, target, **kwargs):
        return self.send("GET", target, **kwargs)

    # Calls

    def order(self, out_trade_no, /, **changes):
        document = {
            "appid": self.appid,
            "mchid": self.mchid,
            "description": "绿茶",
            "out_trade_no": out_trade_no,
            "notify_url": "http://127.0.0.1:1/notify",
            "amount": {"total": 100, "currency": "CNY"},
            "payer": {"openid": "oPayer"},
        } | changes
        return {name: value for name, value in document.items() if value is not None}

    def place(self, out_trade_no, /, **changes):
        return self.post("/v3/pay/transactions/jsapi", self.order(out_trade_no, **changes))

    def query(self, out_trade_no):
        return self.get(f"/v3/pay/transactions/out-trade-no/{out_trade_no}?mchid={self.mchid}")

    def close(self, out_trade_no):
        return self.post(
            f"/v3/pay/transactions/out-trade-no/{out_trade_no}/close", {"mchid": self.mchid}
        )

    def refund(self, out_trade_no, out_refund_no, refund=40, total=100, **changes):
        document = {
            "out_trade_no": out_trade_no,
            "out_refund_no": out_refund_no,
            "amount": {"refund": refund, "total": total, "currency": "CNY"},
        } | changes
        return self.post(
            "/v3/refund/domestic/refunds",
            {name: value for name, value in document.items() if value is not None},
        )

    def control(self, method, path, document=None):
        body = b"" if document is None else json.dumps(document).encode()
        return exchange(self.address, method, f"/_sandbox{path}", body, {})

    # Checks

    def verified(self, answer):
        """The serial that signed ``answer``; raises where the signature does not fit."""
        return self.verify(dict(answer.headers.items()), answer.body)

    def verify(self, headers, body):
        serial = headers["Wechatpay-Serial"]
        message = (
            f"{headers['Wechatpay-Timestamp']}\n{headers['Wechatpay-Nonce']}\n".encode()
            + body
            + b"\n"
        )
        signature = base64.b64decode(headers["Wechatpay-Signature"])
        self.platform_keys[serial].verify(signature, message, PKCS1v15(), SHA256())
        return serial

    def decrypt(self, resource):
        key = AESGCM(self.env["WECHATPAY_APIV3_KEY"].encode())
        return key.decrypt(
            resource["nonce"].encode(),
            base64.b64decode(resource["ciphertext"]),
            resource["associated_data"].encode(),
        )


def exchange(address, method, target, body, headers):
    connection = http.client.HTTPConnection(address.hostname, address.port, timeout=10)
    try:
        connection.putrequest(
            method, target, skip_host="Host" in headers, skip_accept_encoding=True
        )
        for name, value in headers.items():
            for one in value if isinstance(value, list) else [value]:
                connection.putheader(name, one)
        if body or method == "POST":
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()


class Received(NamedTuple):
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


class Receiver:
    """A shop's notify address: records what comes, answers the statuses it was told, then 204."""

    def __init__(self):
        self.received = []
        self.statuses = []
        self.headers = {}
        self.hold = None  # an Event to wait for before answering
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append(Received(dict(self.headers.items()), body))
                if receiver.hold is not None:
                    receiver.hold.wait(10)
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

            def handle(self):
                with contextlib.suppress(ConnectionError):  # the sandbox hung up, as wanted
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/notify"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
