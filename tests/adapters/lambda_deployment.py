"""A shop whose notify handler is a Lambda function: its store, its deployments, its traces."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from adapters.lambda_runtime import LambdaFunction
from core.dynamo_server import REGION, endpoint, table_of
from deliveries import APPID, KEYS, MCHID, envelope, signed, transaction
from wechatpay_kit import OrderRecord, SqliteStore
from wechatpay_kit.store.dynamodb import DynamoStore

if TYPE_CHECKING:
    from pathlib import Path


class Shop:
    """One shop's shared store and traces, and the functions that it deploys."""

    def __init__(self, folder, store: SqliteStore | DynamoStore, env: dict[str, str]) -> None:
        self.store = store
        self._folder = folder
        self._functions: list[LambdaFunction] = []
        self._trace = folder / "fired.jsonl"
        self._trace.touch()
        self.env = env | {
            "SHOP_TRACE": str(self._trace),
            "WECHATPAY_BASE_URL": "http://127.0.0.1:9",
            "WECHATPAY_MCHID": MCHID,
            "WECHATPAY_APIV3_KEY": KEYS.merchant.apiv3_key.decode(),
            "WECHATPAY_PUBLIC_KEY_ID": KEYS.public_key.serial,
            "WECHATPAY_PUBLIC_KEY": KEYS.public_key.pem.decode().replace("\n", "\\n"),
        }

    def deploy(self, handler: str = "lambda_shop.handler", **options: Any) -> LambdaFunction:
        env = self.env | options.pop("env", {})
        log = self._folder / f"log{len(self._functions)}.txt"
        function = LambdaFunction(handler, log, env, **options)
        self._functions.append(function)
        return function

    def place(self, *numbers: str, total: int = 100) -> None:
        """What the process that places orders does to the shared store."""
        for number in numbers:
            self.store.add_order(
                OrderRecord(
                    mchid=MCHID,
                    out_trade_no=number,
                    appid=APPID,
                    total=total,
                    currency="CNY",
                    state="open",
                    created_at=datetime.now(UTC),
                )
            )

    def fired(self) -> list[list[Any]]:
        return [json.loads(line) for line in self._trace.read_text(encoding="utf-8").splitlines()]

    def wait_for(self, name: str) -> None:
        for _ in range(3000):
            if (self._folder / name).exists():
                return
            time.sleep(0.01)
        raise TimeoutError(name)

    def let_go(self, number: str) -> None:
        (self._folder / f"{number}.go").touch()

    def close(self) -> None:
        for function in self._functions:
            function.stop()
        self.store.close()


def sqlite_shop(folder: Path) -> Shop:
    """Over one file of this machine, which its functions do share."""
    path = folder / "orders.db"
    return Shop(folder, SqliteStore(path), {"SHOP_SQLITE": str(path)})


def dynamodb_shop(folder: Path) -> Shop:
    table = table_of(folder)
    store = DynamoStore(table, region=REGION, endpoint_url=endpoint())
    return Shop(folder, store, {"WECHATPAY_STORE": f"dynamodb://{table}", **aws_environment()})


def aws_environment() -> dict[str, str]:
    """What points boto3 in another process at moto."""
    return {
        "AWS_ENDPOINT_URL": endpoint(),
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def paid(number: str = "T1001", **changes: Any) -> tuple[list[tuple[str, str]], bytes]:
    now = datetime.now(UTC)
    plaintext = transaction(number, success_time=now.isoformat(timespec="seconds"))
    body = envelope(plaintext, **changes)
    return signed(body, at=now), body
