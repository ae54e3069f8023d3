"""One DynamoDB table, used by many threads, processes and machines.

Knows boto3, conditional writes, retries and errors; knows nothing of claims or records. Every
read is strongly consistent, but for :meth:`DynamoTable.listed`, which asks the index.

botocore's own retries are off. They would repeat a conditional write that had succeeded and whose
answer was lost, and report the condition that the first one made false. Here a repeat after an
unknown outcome carries the same ``ClientRequestToken`` where it is a transaction, and whoever
writes a condition that its own success makes false reads back before it believes the failure.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

from wechatpay_kit.errors import ConfigError, StoreBusyError, StoreError

from .dynamodb_writes import Item, Key, Write, as_attribute, as_item, named

try:
    import boto3.session
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        EndpointConnectionError,
        HTTPClientError,
        NoRegionError,
    )
    from botocore.parsers import ResponseParserError
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] not in ("boto3", "botocore"):
        raise
    raise ImportError(
        "DynamoStore needs boto3, which is not installed: pip install 'wechatpay-kit[dynamodb]'",
        name="boto3",
    ) from None

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["INDEX", "LAYOUT", "ConditionFailedError", "DynamoTable"]

CONNECT_TIMEOUT = 1.0  # seconds; a request takes some milliseconds, a cold TLS handshake 0.3 s
READ_TIMEOUT = 1.0
INDEX = "listing"
_MOST_KEYS = 100  # of one BatchGetItem
_PAUSE = 0.05  # seconds before the first repeat

LAYOUT: dict[str, Any] = {
    "BillingMode": "PAY_PER_REQUEST",
    "AttributeDefinitions": [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "sk", "AttributeType": "S"},
        {"AttributeName": "listed", "AttributeType": "S"},
        {"AttributeName": "listed_at", "AttributeType": "N"},
    ],
    "KeySchema": [
        {"AttributeName": "pk", "KeyType": "HASH"},
        {"AttributeName": "sk", "KeyType": "RANGE"},
    ],
    "GlobalSecondaryIndexes": [
        {
            "IndexName": INDEX,
            "KeySchema": [
                {"AttributeName": "listed", "KeyType": "HASH"},
                {"AttributeName": "listed_at", "KeyType": "RANGE"},
            ],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
        }
    ],
}


class ConditionFailedError(Exception):
    """A write's condition did not hold, and nothing was written (or it had been before)."""


class DynamoTable:
    """The table ``name``; its client is built here and now, and again after a fork.

    ``wait`` bounds each request with its repeats, in seconds: no attempt begins later, and the
    last one ends by its own time-outs, a second each. Raises :class:`ConfigError` where no region
    is set.
    """

    def __init__(
        self, name: str, wait: float, region: str | None = None, endpoint_url: str | None = None
    ) -> None:
        self.name = name
        self._wait = wait
        self._region = region
        self._endpoint_url = endpoint_url
        self._clients = {os.getpid(): self._connect()}

    def until(self, patience: float | None = None) -> float:
        """The monotonic time at which ``patience`` (seconds, at most ``wait``) is over."""
        return time.monotonic() + min(self._wait, self._wait if patience is None else patience)

    def get(self, key: Key, until: float | None = None) -> Item | None:
        answer = self._call(
            "get_item", until, TableName=self.name, Key=named(key), ConsistentRead=True
        )
        return as_item(answer["Item"]) if "Item" in answer else None

    def get_many(self, keys: Iterable[Key]) -> list[Item]:
        """What is held under ``keys``, in any order."""
        wanted = [named(key) for key in dict.fromkeys(keys)]
        found: list[Item] = []
        until = self.until()
        while wanted:
            batch, wanted = wanted[:_MOST_KEYS], wanted[_MOST_KEYS:]
            request = {self.name: {"Keys": batch, "ConsistentRead": True}}
            answer = self._call("batch_get_item", until, RequestItems=request)
            found += map(as_item, answer["Responses"].get(self.name, []))
            left = answer.get("UnprocessedKeys", {}).get(self.name, {}).get("Keys", [])
            if len(left) < len(batch):
                until = self.until()
            elif time.monotonic() >= until:
                raise StoreBusyError(f"{self} is busy (UnprocessedKeys); come again")
            if left:
                time.sleep(_PAUSE)
            wanted += left
        return found

    def below(self, partition: str, prefix: str) -> Iterator[str]:
        """The sort keys in ``partition`` that begin with ``prefix``, less the prefix."""
        items = self._query(
            ConsistentRead=True,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
            ExpressionAttributeValues={
                ":pk": as_attribute(partition),
                ":prefix": as_attribute(prefix),
            },
        )
        return (item["sk"].removeprefix(prefix) for item in items)

    def listed(self, listing: str, before: float | None = None) -> Iterator[Key]:
        """The keys under ``listing``, in the order of ``listed_at``; some milliseconds behind."""
        values = {":listed": as_attribute(listing)}
        if before is not None:
            values[":before"] = as_attribute(before)
        items = self._query(
            IndexName=INDEX,
            KeyConditionExpression="listed = :listed"
            + ("" if before is None else " AND listed_at < :before"),
            ExpressionAttributeValues=values,
        )
        return ((item["pk"], item["sk"]) for item in items)

    def write(self, write: Write, until: float | None = None) -> None:
        """Do all that ``write`` says, or nothing: :class:`ConditionFailedError`."""
        operation, request = write.request(self.name)
        self._call(operation, until, **request)

    def tries(self, write: Write, until: float | None = None) -> bool:
        """Do what ``write`` says if its conditions hold; whether they did."""
        try:
            self.write(write, until)
        except ConditionFailedError:
            return False
        return True

    def create(self) -> None:
        """Create the table and wait until it can be used."""
        self._call("create_table", None, TableName=self.name, **LAYOUT)
        try:
            self._client.get_waiter("table_exists").wait(
                TableName=self.name, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
            )
        except BotoCoreError as error:
            raise StoreError(f"{self} was created, but is not there yet: {error}") from error

    def close(self) -> None:
        client = self._clients.pop(os.getpid(), None)
        if client is not None:
            client.close()

    @property
    def _client(self) -> DynamoDBClient:
        pid = os.getpid()
        return self._clients.get(pid) or self._clients.setdefault(pid, self._connect())

    def _connect(self) -> DynamoDBClient:
        config = Config(
            connect_timeout=CONNECT_TIMEOUT,
            read_timeout=READ_TIMEOUT,
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=50,
            tcp_keepalive=True,
        )
        try:
            return boto3.session.Session(region_name=self._region).client(
                "dynamodb", endpoint_url=self._endpoint_url, config=config
            )
        except NoRegionError as error:
            raise ConfigError(
                f"no AWS region for the DynamoDB table {self.name}: set AWS_DEFAULT_REGION, "
                "or DynamoStore(region=…)"
            ) from error
        except (BotoCoreError, ValueError) as error:
            raise ConfigError(f"no client for the DynamoDB table {self.name}: {error}") from error

    def _query(self, **request: Any) -> Iterator[Item]:
        start: dict[str, Any] = {}
        while True:
            answer = self._call("query", None, TableName=self.name, **request, **start)
            yield from map(as_item, answer["Items"])
            if "LastEvaluatedKey" not in answer:
                return
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}

    def _call(self, operation: str, until: float | None, **request: Any) -> Any:
        """One request, repeated while the failure is a passing one and time is left."""
        until = self.until() if until is None else until
        call = getattr(self._client, operation)
        pause = _PAUSE / 2
        while True:
            try:
                return _answered(call(**request))
            except (BotoCoreError, ClientError, ResponseParserError) as error:
                cause, failure = error, self._failure(error, operation)
            pause = min(pause * 2, 0.4) * random.uniform(0.5, 1)  # noqa: S311 - spreads repeats
            if not failure.passes or time.monotonic() + pause >= until:
                raise failure.error from cause
            if failure.answered and "ClientRequestToken" in request:
                # Its refusal may be remembered under the token; an unknown outcome has to be.
                request["ClientRequestToken"] = uuid.uuid4().hex
            time.sleep(pause)

    def _failure(self, error: Exception, operation: str) -> _Failure:
        if isinstance(error, ClientError):
            return self._refused(error, operation)
        return self._failed(error)

    def _refused(self, error: ClientError, operation: str) -> _Failure:
        """What DynamoDB answered."""
        code = error.response.get("Error", {}).get("Code", "")
        message = error.response.get("Error", {}).get("Message", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        reasons = {
            reason["Code"]: reason.get("Message", "")
            for reason in error.response.get("CancellationReasons", [])
            if reason.get("Code", "None") != "None"
        }
        codes = reasons.keys() or {code}
        if codes & _CONDITION:
            return _Failure(ConditionFailedError(message))
        if codes <= _PASSING:
            busy = f"{self} is busy ({', '.join(sorted(codes))}); come again"
            return _Failure(StoreBusyError(busy), passes=True)
        if status >= 500 or code == "TransactionInProgressException":  # noqa: PLR2004 - HTTP's
            busy = f"{self} did not answer in time ({code or status}); come again"
            return _Failure(StoreBusyError(busy), passes=True, answered=False)
        said = "; ".join(reasons.values()) or message
        remedy = _REMEDIES.get("TooLarge" if _TOO_LARGE in said else code, "")
        action = "".join(part.capitalize() for part in operation.split("_"))
        return _Failure(StoreError(f"{self}: {action} failed, {code}: {said}. {remedy}".strip()))

    def _failed(self, error: Exception) -> _Failure:
        """No answer, or none that can be read: whether it was done is unknown."""
        if isinstance(error, EndpointConnectionError):
            failure = StoreError(f"{self} cannot be reached: {error}. Check region and network")
            return _Failure(failure, passes=True, answered=False)
        if isinstance(error, (HTTPClientError, ResponseParserError)):
            busy = f"{self} did not answer in time ({type(error).__name__}); come again"
            return _Failure(StoreBusyError(busy), passes=True, answered=False)
        return _Failure(StoreError(f"{self}: {error}. Check the process's AWS configuration"))

    def __str__(self) -> str:
        return f"DynamoDB table {self.name}"


def _answered(answer: Any) -> Any:
    """The answer, if DynamoDB gave it: to botocore any 200 is one, a portal's page an empty one."""
    if "RequestId" not in answer["ResponseMetadata"]:
        raise ResponseParserError("an answer without x-amzn-RequestId")
    return answer


class _Failure(NamedTuple):
    """``passes``: worth another attempt; ``answered``: it is known that nothing was done."""

    error: Exception
    passes: bool = False
    answered: bool = True


# Codes of errors, and of the reasons why a transaction was cancelled.
_CONDITION = frozenset({"ConditionalCheckFailedException", "ConditionalCheckFailed"})
_PASSING = frozenset(
    {
        "LimitExceededException",
        "ProvisionedThroughputExceeded",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingError",
        "ThrottlingException",
        "TransactionConflict",
        "TransactionConflictException",
    }
)
_TOO_LARGE = "Item size"
_CREDENTIALS = "Check the process's AWS credentials and its clock"
_REMEDIES = {
    "AccessDeniedException": "Allow it in the process's IAM policy; "
    "wechatpay_kit.store.dynamodb lists what is needed",
    "ExpiredTokenException": _CREDENTIALS,
    "IncompleteSignatureException": _CREDENTIALS,
    "InvalidSignatureException": _CREDENTIALS,
    "MissingAuthenticationTokenException": _CREDENTIALS,
    "ResourceNotFoundException": "Check table, region and account in WECHATPAY_STORE and the "
    "environment, or create the table: wechatpay_kit.store.dynamodb.create_table",
    "TooLarge": "DynamoDB keeps at most 400 KB an item: shorten what the order carries",
    "UnrecognizedClientException": _CREDENTIALS,
    "ValidationException": "If the keys do not match, the table was made for something else: "
    "wechatpay_kit.store.dynamodb says what it needs",
}
