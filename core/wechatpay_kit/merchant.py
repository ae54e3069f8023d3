"""Who the shop is at WeChat Pay, and the secrets it holds.

Knows settings and their rules; knows nothing of HTTP, orders or stores. Everything that is
missing or malformed is reported in one ConfigError, and no secret appears in a repr or a message.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from .decryptor import Decryptor
from .errors import ConfigError
from .limits import NOTIFY_URL
from .signer import RsaSigner
from .verifier import PUBLIC_KEY_PREFIX, KeyRing, VerificationKey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .signer import Signer

__all__ = [
    "OFFICIAL_BACKUP_URL",
    "OFFICIAL_HOSTS",
    "OFFICIAL_URL",
    "Merchant",
    "plugin_names",
]

OFFICIAL_URL = "https://api.mch.weixin.qq.com"
OFFICIAL_BACKUP_URL = "https://api2.mch.weixin.qq.com"
OFFICIAL_HOSTS = frozenset(
    {
        "api.mch.weixin.qq.com",
        "api2.mch.weixin.qq.com",
        "api.wechatpay.cn",
        "api2.wechatpay.cn",
    }
)

# "SANDBOX" as text, as hex and as decimal ASCII codes: the mark in credentials that a sandbox made.
_SANDBOX_MARKS = (b"SANDBOX", "53414E44424F58", f"{PUBLIC_KEY_PREFIX}83657868667988")
_REFERENCES = ("secretsmanager:", "ssm:")
_APIV3_KEY_BYTES = 32
_MIN_RSA_BITS = 2048


class Merchant:
    """One merchant's identity, keys and addresses; immutable but for ``keys``.

    ``keys`` is the ring of WeChat Pay's keys: those configured, and those downloaded later.

    Secrets are text or bytes as WeChat Pay hands them out: ``private_key`` PEM (PKCS#8 or PKCS#1,
    ``private_key_password`` if it is encrypted), ``apiv3_key`` 32 bytes, ``public_key`` and
    ``platform_cert`` PEM (the latter one or more). A ``signer`` takes the place of
    ``private_key`` where a KMS or HSM holds it. ``receive_only`` needs neither. Raises
    :class:`ConfigError` listing every problem.
    """

    def __init__(
        self,
        *,
        mchid: str | None = None,
        appid: str | None = None,
        serial_no: str | None = None,
        private_key: str | bytes | None = None,
        private_key_password: str | bytes | None = None,
        signer: Signer | None = None,
        apiv3_key: str | bytes | None = None,
        apiv3_key_previous: str | bytes | None = None,
        public_key_id: str | None = None,
        public_key: str | bytes | None = None,
        platform_cert: str | bytes | None = None,
        notify_url: str | None = None,
        base_url: str | None = None,
        backup_url: str | None = None,
        plugins: Sequence[str] = (),
        store: str | None = None,
        sandbox_clock: str | None = None,
        receive_only: bool = False,
        _read: _Settings | None = None,
    ) -> None:
        check = _read or _Settings(lambda field: field)
        private_key = check.secret("private_key", private_key)
        apiv3_key = check.secret("apiv3_key", apiv3_key)
        apiv3_key_previous = check.secret("apiv3_key_previous", apiv3_key_previous)
        public_key = check.secret("public_key", public_key)
        platform_cert = check.secret("platform_cert", platform_cert)
        self.receive_only = receive_only
        self.mchid = check.text("mchid", mchid, r"[0-9]{1,32}", "1900000001")
        self.appid = check.text(
            "appid", appid, r"[0-9A-Za-z_\-]{1,32}", "wxd678efh567hg6787", needed=not receive_only
        )
        self.notify_url = notify_url or ""
        if notify_url and (broken := NOTIFY_URL.broken_by(notify_url)):
            check.problem("notify_url", f"{broken}; like https://shop.example/wechatpay/notify")
        # A malformed address is a problem that finish() raises; it must not pass for the real one.
        self.base_url = (check.url("base_url", base_url) or "") if base_url else OFFICIAL_URL
        self.backup_url = check.url("backup_url", backup_url)
        if base_url is None and self.backup_url is None:
            self.backup_url = OFFICIAL_BACKUP_URL
        self.plugins = tuple(plugins)
        self.store = store
        self.sandbox_clock = check.url("sandbox_clock", sandbox_clock)

        self._signer = signer
        self._private_key: RSAPrivateKey | None = None
        if private_key is not None:
            self._private_key = check.private_key(private_key, private_key_password)
        if signer is None and not receive_only:
            if private_key is None:
                check.missing("private_key", "PEM text, -----BEGIN PRIVATE KEY-----…")
            checked = check.text(
                "serial_no",
                serial_no,
                r"[0-9A-Fa-f]{40}",
                "5157F09EFDC096DE15EBE81A47057A7232F1B8E1",
            )
            if self._private_key is not None:
                self._signer = RsaSigner(self._private_key, checked)

        apiv3_keys = {
            "apiv3_key": check.apiv3_key("apiv3_key", apiv3_key, needed=True),
            "apiv3_key_previous": check.apiv3_key(
                "apiv3_key_previous", apiv3_key_previous, needed=False
            ),
        }
        self._verification_keys = [
            *check.public_key(public_key_id, public_key),
            *check.certificates(platform_cert),
        ]
        self.keys = KeyRing(self._verification_keys)
        self.public_key_id = public_key_id if public_key else None
        self.uses_certificates = platform_cert is not None or self.public_key_id is None
        if receive_only and public_key is None and platform_cert is None:
            check.missing(
                "public_key",
                "the WeChat Pay public key with its id, or a platform certificate: a receiver "
                "without a private key cannot download one",
            )
        serial = self._signer.serial_no if self._signer else serial_no
        self._refuse_sandbox_credentials(check, apiv3_keys, serial, public_key_id)
        check.finish()
        self.decryptor = Decryptor(*filter(None, apiv3_keys.values()))

    @classmethod
    def from_env(
        cls,
        prefix: str = "WECHATPAY_",
        environ: Mapping[str, str] | None = None,
        *,
        receive_only: bool = False,
        needs_store: bool = False,
    ) -> Merchant:
        """From ``WECHATPAY_MCHID`` and its like; another ``prefix`` for another merchant.

        ``PRIVATE_KEY``, ``PUBLIC_KEY`` and ``PLATFORM_CERT`` hold PEM text (line ends may be
        written as backslash-n) or are read from the file that ``…_PATH`` names.
        """
        env = os.environ if environ is None else environ
        read = _Settings(lambda field: prefix + field.upper())

        def value(field: str) -> str | None:
            return env.get(prefix + field.upper()) or None

        def secret(field: str) -> str | None:
            return read.not_empty(field, env.get(prefix + field.upper()))

        def pem(field: str) -> bytes | None:
            return read.pem(field, secret(field), value(f"{field}_path"))

        base_url = value("base_url")
        store = value("store")
        if needs_store and store is None and (base_url is None or _is_official(base_url)):
            read.missing("store", "sqlite:////var/lib/shop/wechatpay.db")
        return cls(
            mchid=value("mchid"),
            appid=value("appid"),
            serial_no=value("serial_no"),
            private_key=None if receive_only else pem("private_key"),
            private_key_password=secret("private_key_password"),
            apiv3_key=secret("apiv3_key"),
            apiv3_key_previous=secret("apiv3_key_previous"),
            public_key_id=value("public_key_id"),
            public_key=pem("public_key"),
            platform_cert=pem("platform_cert"),
            notify_url=value("notify_url"),
            base_url=base_url,
            backup_url=value("backup_url"),
            plugins=plugin_names(value("plugins")),
            store=store,
            sandbox_clock=value("sandbox_clock"),
            receive_only=receive_only,
            _read=read,
        )

    @property
    def is_official(self) -> bool:
        """Whether calls may go to the real WeChat Pay."""
        return _is_official(self.base_url) or _is_official(self.backup_url or "")

    @property
    def signer(self) -> Signer:
        """What signs for the merchant; :class:`ConfigError` where it may only receive."""
        if self._signer is None:
            raise ConfigError(
                "this call must be signed, but the merchant was set up with receive_only=True; "
                "make the call in the process that holds the private key"
            )
        return self._signer

    @property
    def private_key(self) -> RSAPrivateKey:
        """For sensitive answer fields; :class:`ConfigError` where it is not in this process."""
        if self._private_key is None:
            raise ConfigError("private_key is not held by this process; set private_key=…")
        return self._private_key

    def __repr__(self) -> str:
        return f"Merchant(mchid={self.mchid!r}, appid={self.appid!r}, base_url={self.base_url!r})"

    def _refuse_sandbox_credentials(
        self,
        check: _Settings,
        apiv3_keys: Mapping[str, bytes],
        serial_no: str | None,
        public_key_id: str | None,
    ) -> None:
        if not self.is_official:
            return
        key_mark, serial_mark, id_mark = _SANDBOX_MARKS
        marked = {
            **{field: key.startswith(key_mark) for field, key in apiv3_keys.items()},
            "serial_no": (serial_no or "").upper().startswith(serial_mark),
            "public_key_id": (public_key_id or "").startswith(id_mark),
            "platform_cert": any(k.serial.startswith(serial_mark) for k in self._verification_keys),
            "sandbox_clock": self.sandbox_clock is not None,
        }
        for field, is_marked in marked.items():
            if is_marked:
                check.problem(
                    field,
                    f"belongs to a sandbox, but calls go to {self.base_url}; "
                    "set the sandbox's base_url too, or the real credentials",
                )


class _Settings:
    """Checks settings one by one and remembers every problem, under the name its user knows."""

    def __init__(self, name: Callable[[str], str]) -> None:
        self._name = name
        self._problems: list[str] = []

    def problem(self, field: str, rule: str) -> None:
        self._problems.append(f"{self._name(field)} {rule}")

    def missing(self, field: str, example: str) -> None:
        named = tuple(f"{self._name(name)} " for name in (field, f"{field}_path"))
        if not any(text.startswith(named) for text in self._problems):
            self.problem(field, f"is missing; for example {example}")

    def finish(self) -> None:
        if self._problems:
            raise ConfigError(self._problems)

    def text(
        self, field: str, value: object, pattern: str, example: str, *, needed: bool = True
    ) -> str:
        if not value:
            if needed:
                self.missing(field, example)
            return ""
        if not isinstance(value, str):
            self.problem(field, f"must be text, like {example}; got {type(value).__name__}")
            return ""
        if not re.fullmatch(pattern, value):
            self.problem(field, f"must match {pattern}, like {example}; got {value[:64]!r}")
        return value

    def url(self, field: str, value: object) -> str | None:
        if not value:
            return None
        if not isinstance(value, str):
            self.problem(field, f"must be text, like {OFFICIAL_URL}; got {type(value).__name__}")
            return None
        rule = (
            "must be an https:// address without user, query or fragment (http:// for loopback "
            f"only), like {OFFICIAL_URL}"
        )
        try:
            parts = urlsplit(value)
            host, _port = parts.hostname or "", parts.port
        except ValueError:
            self.problem(field, rule)
            return None
        loopback = host == "localhost" or re.fullmatch(r"127\.\d+\.\d+\.\d+|::1", host)
        extras = (parts.query, parts.fragment, parts.username, parts.password)
        if (
            not re.fullmatch(r"[!-~]+", value)
            or not host
            or any(extras)
            or not (parts.scheme == "https" or (parts.scheme == "http" and loopback))
        ):
            self.problem(field, rule)
            return None
        return value.rstrip("/")

    def secret(self, field: str, value: object) -> str | bytes | None:
        if value is None or isinstance(value, str | bytes):
            return value
        self.problem(field, f"must be text or bytes; got {type(value).__name__}")
        return None

    def not_empty(self, field: str, value: str | None) -> str | None:
        if value is not None and not value.strip():
            self.problem(field, "is set but empty; set the secret or remove the variable")
            return None
        if value is not None and value.startswith(_REFERENCES):
            # One of 32 characters would pass for an APIv3 key, and nothing would decrypt.
            self.problem(
                field,
                "is a reference to a secret, which nobody has followed; on AWS Lambda pass "
                "environ=wechatpay_kit_lambda.Environment()",
            )
            return None
        return value

    def pem(self, field: str, text: str | None, path: str | None) -> bytes | None:
        if text is not None and path is not None:
            self.problem(field, f"and {self._name(field)}_PATH are both set; keep one")
        if text is not None:
            return _bytes(text.replace("\\n", "\n"))
        if path is None:
            return None
        from pathlib import Path  # noqa: PLC0415 - paid by who has files

        try:
            return Path(path).read_bytes()
        except OSError as error:
            self.problem(f"{field}_path", f"{path!r} cannot be read: {error.strerror}")
            return None

    def apiv3_key(self, field: str, value: str | bytes | None, *, needed: bool) -> bytes:
        if not value:
            if needed or value is not None:
                self.missing(field, "the 32 characters set in the merchant platform, API security")
            return b""
        try:
            key = value.encode() if isinstance(value, str) else value
        except UnicodeEncodeError:
            key = b""
        if len(key) != _APIV3_KEY_BYTES:
            self.problem(
                field,
                f"must be exactly {_APIV3_KEY_BYTES} bytes, like 0123456789abcdef0123456789abcdef; "
                f"it has {len(key)}",
            )
            return b""
        return key

    def private_key(self, pem: str | bytes, password: str | bytes | None) -> RSAPrivateKey | None:
        try:
            key = load_pem_private_key(_bytes(pem), _bytes(password) if password else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            needs = (
                "and private_key_password must open it"
                if password
                else ("unencrypted, or with private_key_password")
            )
            self.problem(
                "private_key",
                "must be an RSA key, the PEM text of apiclient_key.pem (PKCS#8 or PKCS#1), "
                f"{needs}, like "
                "-----BEGIN PRIVATE KEY-----…",
            )
            return None
        if not isinstance(key, RSAPrivateKey) or key.key_size < _MIN_RSA_BITS:
            self.problem("private_key", f"must be an RSA key of at least {_MIN_RSA_BITS} bits")
            return None
        return key

    def public_key(self, key_id: object, pem: str | bytes | None) -> list[VerificationKey]:
        if pem is None and key_id is None:
            return []
        if pem is None or key_id is None:
            missing = "public_key" if pem is None else "public_key_id"
            self.missing(missing, "both the id (PUB_KEY_ID_…) and the PEM of the public key")
            return []
        if not isinstance(key_id, str) or not re.fullmatch(
            rf"{PUBLIC_KEY_PREFIX}[0-9A-Za-z]{{1,53}}", key_id
        ):
            self.problem(
                "public_key_id", "must look like PUB_KEY_ID_0000000000000024101100397200000006"
            )
        try:
            return [VerificationKey.from_public_key(str(key_id), _bytes(pem))]
        except (ValueError, UnsupportedAlgorithm):
            self.problem(
                "public_key", "must be PEM of an RSA public key, like -----BEGIN PUBLIC KEY-----…"
            )
            return []

    def certificates(self, pem: str | bytes | None) -> list[VerificationKey]:
        if pem is None:
            return []
        try:
            return VerificationKey.from_certificates(_bytes(pem))
        except (ValueError, UnsupportedAlgorithm):
            self.problem(
                "platform_cert",
                "must be PEM of one or more certificates, like -----BEGIN CERTIFICATE-----…",
            )
            return []


def plugin_names(setting: str | None) -> list[str]:
    """What ``PLUGINS`` lists, separated by commas."""
    return [name.strip() for name in (setting or "").split(",") if name.strip()]


def _is_official(url: str) -> bool:
    try:
        return (urlsplit(url).hostname or "").rstrip(".") in OFFICIAL_HOSTS
    except ValueError:
        return False


def _bytes(value: str | bytes) -> bytes:
    # "replace" rather than a UnicodeEncodeError, whose text would show the secret
    return value.encode(errors="replace") if isinstance(value, str) else value
