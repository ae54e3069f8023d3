"""Settings whose values are references to secrets: ``secretsmanager:NAME`` and ``ssm:NAME``.

Knows references, boto3 and a time to live; knows nothing of what the settings mean. No message
and no repr holds a value.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from wechatpay_kit import ConfigError
from wechatpay_kit.log import logger

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Environment"]

TTL = timedelta(minutes=5)
TIMEOUT = timedelta(seconds=1)
RETRY = timedelta(minutes=1)  # after a failed fetch: it costs a delivery most of its 5 s


class Environment(Mapping[str, str]):
    """The process's environment with references resolved; hand it to ``Kit.from_env(environ=…)``.

    ``WECHATPAY_APIV3_KEY=secretsmanager:shop/wechatpay#apiv3_key`` is that key of the JSON in
    that secret (a name or an ARN; without ``#`` the whole text), ``ssm:/shop/apiv3_key`` that
    parameter of the Parameter Store, decrypted. Each secret is fetched when a variable that names
    it is first read: a receive-only kit never reads the private key, so the function needs no
    right to it. Given to :func:`notify_handler`, secrets are fetched again ``ttl`` after that,
    with the next delivery; where that fails, the old values stay and a warning is logged. Each
    fetch is tried twice, with ``timeout`` to connect and to read.

    Reading raises :class:`ConfigError` naming variable and reference where the secret cannot be
    had. Needs boto3, which Lambda's Python runtimes have, only where there is a reference.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        ttl: timedelta = TTL,
        timeout: timedelta = TIMEOUT,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._environ = os.environ if environ is None else environ
        self._ttl = ttl
        self._timeout = timeout
        # Wall time: a monotonic clock may stand still while Lambda freezes the environment.
        self._now = now
        self._due = now() + ttl.total_seconds()
        self._held: dict[_Secret, str] = {}
        self._clients: dict[str, Any] = {}

    def __getitem__(self, variable: str) -> str:
        value = self._environ[variable]
        secret = _named_by(value)
        if secret is None:
            return value
        name = f"{variable}={value}"
        if secret not in self._held:
            self._held[secret] = self._fetch(secret, name)
        _, _, field = value.partition("#")
        return _field(self._held[secret], field, name) if field else self._held[secret]

    def __contains__(self, variable: object) -> bool:
        return variable in self._environ

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)

    def __repr__(self) -> str:  # a mapping's would show what it holds
        return f"Environment({len(self._held)} secrets, ttl={self._ttl})"

    def copy(self) -> Environment:
        """Another one that has fetched nothing yet."""
        return Environment(self._environ, ttl=self._ttl, timeout=self._timeout, now=self._now)

    def refreshed(self) -> Environment | None:
        """Where the time to live is over and a secret has another value: an environment with it.

        This one keeps its values, so that what was built from it stays whole.
        """
        now = self._now()
        if 0 < self._due - now <= self._ttl.total_seconds():  # a clock set back does not delay it
            return None
        try:
            held = {secret: self._fetch(secret, str(secret)) for secret in self._held}
        except ConfigError as error:
            self._due = now + min(self._ttl, RETRY).total_seconds()
            logger.warning("secrets cannot be fetched again, the old ones stay: %s", error)
            return None
        self._due = now + self._ttl.total_seconds()
        if held == self._held:
            return None
        fresh = self.copy()
        fresh._held, fresh._clients = held, self._clients  # noqa: SLF001 - another of its own kind
        return fresh

    def _fetch(self, secret: _Secret, name: str) -> str:
        try:
            from botocore.exceptions import (  # noqa: PLC0415 - paid by who has references
                BotoCoreError,
                ClientError,
            )
        except ModuleNotFoundError:
            raise ConfigError(
                f"{name} needs boto3, which is not installed: pip install 'wechatpay-kit[dynamodb]'"
            ) from None
        try:
            return _READERS[secret.service](self._client(secret.service), secret.name)
        except (BotoCoreError, ClientError) as error:
            raise ConfigError(
                f"{name} cannot be fetched: {error}; check that the name is right and that the "
                "function's role may read it"
            ) from error

    def _client(self, service: str) -> Any:
        if service not in self._clients:
            import boto3  # noqa: PLC0415 - paid by who has references
            from botocore.config import Config  # noqa: PLC0415 - the same

            make_client: Any = boto3.client  # typed for literal names alone
            self._clients[service] = make_client(
                service,
                config=Config(
                    connect_timeout=self._timeout.total_seconds(),
                    read_timeout=self._timeout.total_seconds(),
                    retries={"total_max_attempts": 2, "mode": "standard"},
                ),
            )
        return self._clients[service]


class _Secret(NamedTuple):
    service: str
    name: str

    def __str__(self) -> str:
        return f"{self.service}:{self.name}"


def _named_by(value: str) -> _Secret | None:
    service, colon, rest = value.partition(":")
    name, _, _ = rest.partition("#")
    return _Secret(service, name) if colon and service in _READERS else None


def _read_secret(client: Any, name: str) -> str:
    answer = client.get_secret_value(SecretId=name)
    text = answer.get("SecretString")
    return str(answer["SecretBinary"].decode() if text is None else text)


def _read_parameter(client: Any, name: str) -> str:
    return str(client.get_parameter(Name=name, WithDecryption=True)["Parameter"]["Value"])


_READERS = {"secretsmanager": _read_secret, "ssm": _read_parameter}


def _field(text: str, field: str, name: str) -> str:
    try:
        value = json.loads(text)[field]
    except (ValueError, KeyError, TypeError):
        value = None
    if not isinstance(value, str):  # said here, not above: the decoder's error holds the secret
        raise ConfigError(
            f"{name} names a field, but the secret is no JSON object with a text {field!r}"
        )
    return value
