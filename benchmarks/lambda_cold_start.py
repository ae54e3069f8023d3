"""What a cold start on Lambda costs until the first answer, beside what it cannot do without.

Run it with ``python -m nox -s bench``. The floor is written by hand: it loads the same key with
the same ``cryptography``, verifies and decrypts, decodes with ``msgspec``, fires one hook with
``pluggy``, and talks to the same store in the same words. Each figure is the best of fresh
processes, taken in turn, from their first line on; what Python and the runtime client need to
start is not in it.

* *without boto3*: the store is a dictionary.
* *with boto3*: a DynamoDB table, served by moto, where it is installed. The floor replays the very
  requests that the kit was seen to send.

All of it runs from compiled bytecode; a package deployed without is compiled at each cold start.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import pickle
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from wechatpay_kit import OrderRecord
from wechatpay_kit.verifier import signed_bytes
from wechatpay_kit_sandbox.keys import generate_keys
from wechatpay_kit_sandbox.sealing import encrypt

try:
    from moto.server import ThreadedMotoServer
except ModuleNotFoundError:
    ThreadedMotoServer = None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROUNDS = 15
KEYS = generate_keys()
BYTECODE = tempfile.TemporaryDirectory()
NUMBER = "T1001"
NONCE = "0123456789ab"

KIT = """
import importlib, json, logging, os, sys, time, traceback  # the runtime client has these already
began, began_cpu = time.perf_counter(), time.process_time()
from contextlib import contextmanager
from types import SimpleNamespace
from wechatpay_kit import Kit, hookimpl
from wechatpay_kit.records import OrderRecord
from wechatpay_kit_lambda import Environment, notify_handler

class Fulfilment:
    @hookimpl
    def on_paid(self, event):
        pass

class Dictionary:
    def __init__(self):
        self.orders = json.loads(os.environ["ORDERS"])
    def order(self, mchid, number):
        return OrderRecord(**self.orders[number])
    @contextmanager
    def claim(self, fact, **terms):
        yield SimpleNamespace(outcome="fresh", attempt=1, fence=1, recorded=None, connection=None,
                              completed=frozenset(), complete_plugin=lambda name: None)

handler = notify_handler(
    lambda environ: Kit.from_env(
        environ=environ, plugins=[Fulfilment()], receive_only=True,
        store=None if "WECHATPAY_STORE" in os.environ else Dictionary()),
    environ=Environment(),
)
handler.build()
event = json.loads(os.environ["EVENT"])
"""

SPY = """
import botocore.client, pickle, base64
sent, call = [], botocore.client.BaseClient._make_api_call
def spying(self, operation, request):
    sent.append((operation, request))
    return call(self, operation, request)
botocore.client.BaseClient._make_api_call = spying
handler(event, None)
print(base64.b64encode(pickle.dumps(sent)).decode())
"""

FLOOR = """
import importlib, json, logging, os, sys, time, traceback  # the runtime client has these already
began, began_cpu = time.perf_counter(), time.process_time()
import base64
import msgspec, pluggy
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

if "WECHATPAY_STORE" in os.environ:
    import boto3.session
    from botocore.config import Config
    client = boto3.session.Session().client("dynamodb", config=Config(
        connect_timeout=1, read_timeout=1, retries={"total_max_attempts": 1, "mode": "standard"}))
key = load_pem_public_key(os.environ["WECHATPAY_PUBLIC_KEY"].encode())
cipher = AESGCM(os.environ["WECHATPAY_APIV3_KEY"].encode())
hookspec, hookimpl = pluggy.HookspecMarker("shop"), pluggy.HookimplMarker("shop")

class Hooks:
    @hookspec
    def on_paid(self, event):
        pass

class Fulfilment:
    @hookimpl
    def on_paid(self, event):
        pass

plugins = pluggy.PluginManager("shop")
plugins.add_hookspecs(Hooks)
plugins.register(Fulfilment())

def handler(event, context):
    headers = event["headers"]
    body = event["body"].encode()
    lines = headers["wechatpay-timestamp"], headers["wechatpay-nonce"], event["body"], ""
    key.verify(base64.b64decode(headers["wechatpay-signature"]), "\\n".join(lines).encode(),
               PKCS1v15(), SHA256())
    resource = msgspec.json.decode(body)["resource"]
    transaction = msgspec.json.decode(cipher.decrypt(
        resource["nonce"].encode(), base64.b64decode(resource["ciphertext"]),
        resource["associated_data"].encode()))
    requests = SENT if "WECHATPAY_STORE" in os.environ else [None]
    for number, request in enumerate(requests):
        if number == len(requests) // 2:
            plugins.hook.on_paid(event=transaction)
        if request is not None:
            client._make_api_call(*request)
    return {"statusCode": 204}

event = json.loads(os.environ["EVENT"])
"""

ANSWER = """
answer = handler(event, None)
ended, ended_cpu = time.perf_counter(), time.process_time()
assert answer["statusCode"] == 204, answer
print(ended - began, ended_cpu - began_cpu)
"""


def event() -> dict[str, Any]:
    """An HTTP API's event with one signed payment."""
    at = datetime.now(UTC)
    transaction = {
        "mchid": KEYS.merchant.mchid,
        "appid": KEYS.merchant.appid,
        "out_trade_no": NUMBER,
        "transaction_id": "4200002026112400000000000001",
        "trade_state": "SUCCESS",
        "success_time": at.isoformat(timespec="seconds"),
        "amount": {"total": 100, "payer_total": 100, "currency": "CNY", "payer_currency": "CNY"},
    }
    resource = encrypt(
        KEYS.merchant.apiv3_key,
        json.dumps(transaction).encode(),
        associated_data="transaction",
        nonce=NONCE,
    )
    body = json.dumps({"id": "1", "event_type": "TRANSACTION.SUCCESS", "resource": resource})
    timestamp = str(int(at.timestamp()))
    message = signed_bytes(timestamp, NONCE, body.encode())
    signature = KEYS.public_key.private_key.sign(message, PKCS1v15(), SHA256())
    return {
        "version": "2.0",
        "rawPath": "/wechatpay/notify",
        "headers": {
            "wechatpay-timestamp": timestamp,
            "wechatpay-nonce": NONCE,
            "wechatpay-signature": base64.b64encode(signature).decode(),
            "wechatpay-serial": KEYS.public_key.serial,
        },
        "requestContext": {"http": {"method": "POST", "path": "/wechatpay/notify"}},
        "body": body,
        "isBase64Encoded": False,
    }


def order() -> OrderRecord:
    return OrderRecord(
        mchid=KEYS.merchant.mchid,
        out_trade_no=NUMBER,
        appid=KEYS.merchant.appid,
        total=100,
        currency="CNY",
        state="open",
        created_at=datetime.now(UTC),
    )


def settings() -> dict[str, str]:
    known = {name: getattr(order(), name) for name in ("appid", "total", "currency", "state")}
    named = {"mchid": KEYS.merchant.mchid, "out_trade_no": NUMBER, "created_at": None}
    ours = ("WECHATPAY_", "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | {
        "PYTHONPYCACHEPREFIX": BYTECODE.name,
        "WECHATPAY_BASE_URL": "http://127.0.0.1:9",
        "WECHATPAY_MCHID": KEYS.merchant.mchid,
        "WECHATPAY_APIV3_KEY": KEYS.merchant.apiv3_key.decode(),
        "WECHATPAY_PUBLIC_KEY_ID": KEYS.public_key.serial,
        "WECHATPAY_PUBLIC_KEY": KEYS.public_key.pem.decode(),
        "EVENT": json.dumps(event()),
        "ORDERS": json.dumps({NUMBER: known | named}),
    }


class Dictionary:
    """No boto3: the store is a dictionary of the process's own."""

    def kit(self) -> tuple[str, dict[str, str]]:
        return KIT, settings()

    def floor(self) -> tuple[str, dict[str, str]]:
        return FLOOR, settings()


class Table:
    """A DynamoDB table for each process, with the order placed in it."""

    def __init__(self) -> None:
        self._made = 0
        self._sent = pickle.loads(base64.b64decode(run(KIT + SPY, self._settings())[0]))

    def kit(self) -> tuple[str, dict[str, str]]:
        return KIT, self._settings()

    def floor(self) -> tuple[str, dict[str, str]]:
        env = self._settings()
        sent = pickle.dumps(renamed(self._sent, env["WECHATPAY_STORE"].rpartition("/")[2]))
        return f"import pickle\nSENT = pickle.loads({sent!r})\n{FLOOR}", env

    def _settings(self) -> dict[str, str]:
        from wechatpay_kit.store.dynamodb import DynamoStore, create_table  # noqa: PLC0415 - boto3

        self._made += 1
        table = f"orders-{self._made}"
        create_table(table)
        store = DynamoStore(table)
        store.add_order(order())
        store.close()
        return settings() | {"WECHATPAY_STORE": f"dynamodb://{table}"}


def renamed(request: Any, table: str) -> Any:
    """The same requests to another table."""
    if isinstance(request, dict):
        return {
            name: table if name == "TableName" else renamed(value, table)
            for name, value in request.items()
        }
    return (
        [renamed(part, table) for part in request] if isinstance(request, list | tuple) else request
    )


def run(code: str, env: dict[str, str], *options: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, *options, "-c", code], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout, done.stderr


def measure(code: str, env: dict[str, str]) -> tuple[float, float]:
    """Milliseconds by the clock, and of the processor."""
    wall, cpu = map(float, run(code + ANSWER, env)[0].split())
    return wall * 1000, cpu * 1000


def imported(store: Callable[[], tuple[str, dict[str, str]]]) -> dict[str, float]:
    """Each imported module's own time, in milliseconds, as Python measures it; the best of some."""
    best: dict[str, float] = {}
    for _ in range(5):
        code, env = store()
        for line in run(code + ANSWER, env, "-X", "importtime")[1].splitlines():
            own, _, name = line.removeprefix("import time:").partition("|")
            if own.strip().isdigit():
                name = name.partition("|")[2].strip()
                best[name] = min(int(own) / 1000, best.get(name, 1000.0))
    return best


def compare(title: str, store: Dictionary | Table) -> None:
    measure(*store.floor())  # compiles
    measure(*store.kit())
    floors, kits = [], []
    for _ in range(ROUNDS):
        floors.append(measure(*store.floor()))
        kits.append(measure(*store.kit()))
    for what, place in (("by the clock", 0), ("of the processor", 1)):
        floor, kit = (min(sample[place] for sample in samples) for samples in (floors, kits))
        ratio = f"{kit / floor:.2f} x floor"
        print(f"{title}, {what}: floor {floor:.1f} ms, kit {kit:.1f} ms, {ratio}")
    bare = imported(store.floor)
    extra = {name: own for name, own in imported(store.kit).items() if name not in bare}
    ours = [own for name, own in extra.items() if name.startswith("wechatpay_kit")]
    others = sum(extra.values()) - sum(ours)
    print(
        f"  of the {kit - floor:.1f} ms more of the processor, {sum(ours):.1f} import the kit's "
        f"{len(ours)} modules, {others:.1f} other modules that the floor does not:"
    )
    for name in sorted(extra, key=extra.__getitem__, reverse=True)[:10]:
        print(f"    {extra[name]:6.2f} ms  {name}")


@contextmanager
def aws() -> Iterator[None]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    os.environ.update(
        AWS_ENDPOINT_URL=f"http://{host}:{port}",
        AWS_DEFAULT_REGION="eu-west-1",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_EC2_METADATA_DISABLED="true",
    )
    try:
        yield
    finally:
        server.stop()


def main() -> None:
    compare("without boto3", Dictionary())
    if ThreadedMotoServer is None:
        print("with boto3: not measured, for moto[server,dynamodb] is not installed")
        return
    with aws():
        compare("with boto3", Table())


if __name__ == "__main__":
    main()
