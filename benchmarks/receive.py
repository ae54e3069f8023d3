"""What a delivery costs, beside the cryptography that no receiver can do without.

Run it with ``python -m nox -s bench``. Each line is a ratio to the floor measured in the same
run: one RSA-2048 verification, one AES-256-GCM decryption and two JSON decodings.
"""

from __future__ import annotations

import base64
import json
import logging
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

from wechatpay_kit import Kit, Merchant, OrderRecord, SqliteStore, hookimpl
from wechatpay_kit.verifier import signed_bytes
from wechatpay_kit_sandbox.keys import generate_keys
from wechatpay_kit_sandbox.sealing import encrypt

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS, SAMPLES = 300, 7
KEYS = generate_keys()
NOW = datetime.now(UTC)
NONCE = "0123456789ab"


class Fulfilment:
    @hookimpl
    def on_paid(self, event: Any) -> None:
        pass


def transaction(number: int) -> dict[str, Any]:
    return {
        "mchid": KEYS.merchant.mchid,
        "appid": KEYS.merchant.appid,
        "out_trade_no": f"T{number:08}",
        "transaction_id": f"42000020261124{number:014}",
        "trade_state": "SUCCESS",
        "success_time": NOW.isoformat(timespec="seconds"),
        "payer": {"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"},
        "amount": {"total": 100, "payer_total": 100, "currency": "CNY", "payer_currency": "CNY"},
    }


def delivery(number: int) -> tuple[list[tuple[str, str]], bytes]:
    plaintext = json.dumps(transaction(number)).encode()
    resource = encrypt(
        KEYS.merchant.apiv3_key, plaintext, associated_data="transaction", nonce=NONCE
    )
    body = json.dumps(
        {"id": str(number), "event_type": "TRANSACTION.SUCCESS", "resource": resource}
    ).encode()
    timestamp = str(int(NOW.timestamp()))
    message = signed_bytes(timestamp, NONCE, body)
    signature = KEYS.public_key.private_key.sign(message, PKCS1v15(), SHA256())
    headers = [
        ("Wechatpay-Timestamp", timestamp),
        ("Wechatpay-Nonce", NONCE),
        ("Wechatpay-Signature", base64.b64encode(signature).decode()),
        ("Wechatpay-Serial", KEYS.public_key.serial),
    ]
    return headers, body


def floor(headers: list[tuple[str, str]], body: bytes) -> Any:
    values = dict(headers)
    public_key.verify(
        base64.b64decode(values["Wechatpay-Signature"]),
        signed_bytes(values["Wechatpay-Timestamp"], values["Wechatpay-Nonce"], body),
        PKCS1v15(),
        SHA256(),
    )
    resource = json.loads(body)["resource"]
    sealed = base64.b64decode(resource["ciphertext"])
    return json.loads(cipher.decrypt(NONCE.encode(), sealed, b"transaction"))


public_key = KEYS.public_key.private_key.public_key()
cipher = AESGCM(KEYS.merchant.apiv3_key)


def microseconds(work: Callable[..., Any], deliveries: list[Any]) -> float:
    began = time.perf_counter()
    for headers, body in deliveries:
        work(headers, body)
    return (time.perf_counter() - began) / len(deliveries) * 1e6


def main() -> None:
    logging.getLogger("wechatpay_kit").setLevel(logging.CRITICAL)
    merchant = Merchant(
        mchid=KEYS.merchant.mchid,
        apiv3_key=KEYS.merchant.apiv3_key,
        public_key_id=KEYS.public_key.serial,
        public_key=KEYS.public_key.pem,
        base_url="http://127.0.0.1:9",
        receive_only=True,
    )
    results: dict[str, list[float]] = {"floor": [], "duplicate": [], "first": [], "forged": []}
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "orders.db")
        kit = Kit(merchant, plugins=[Fulfilment()], store=store)
        for sample in range(SAMPLES):
            numbers = range(sample * ROUNDS, (sample + 1) * ROUNDS)
            deliveries = [delivery(number) for number in numbers]
            for number in numbers:
                store.add_order(
                    OrderRecord(
                        mchid=merchant.mchid,
                        out_trade_no=f"T{number:08}",
                        appid=KEYS.merchant.appid,
                        total=100,
                        currency="CNY",
                        state="open",
                        created_at=NOW,
                    )
                )
            receive = kit.receiver.receive
            forged = [(headers, body + b" ") for headers, body in deliveries]
            results["floor"].append(microseconds(floor, deliveries))
            results["first"].append(microseconds(receive, deliveries))
            results["duplicate"].append(microseconds(receive, deliveries))
            results["forged"].append(microseconds(receive, forged))
        kit.close()
    lowest = statistics.median(results["floor"])
    for name, samples in results.items():
        middle = statistics.median(samples)
        print(f"{name:<10} {middle:8.1f} µs  {middle / lowest:5.2f} × floor")


if __name__ == "__main__":
    main()
