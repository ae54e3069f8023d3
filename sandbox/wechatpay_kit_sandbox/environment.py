"""The WECHATPAY_* variables that point a shop at a sandbox, and the files that carry them.

Knows names and files; knows nothing of servers or orders.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .keys import private_pem

if TYPE_CHECKING:
    from .keys import Keys

__all__ = ["environment", "shell_lines", "write_env_file"]


def environment(keys: Keys, base_url: str, notify_url: str | None) -> dict[str, str]:
    """All settings as text, the keys as PEM."""
    return _settings(keys, base_url, notify_url) | {
        "WECHATPAY_PRIVATE_KEY": private_pem(keys.merchant.private_key).decode(),
        "WECHATPAY_PLATFORM_CERT": keys.certificate.pem.decode(),
        "WECHATPAY_PUBLIC_KEY": keys.public_key.pem.decode(),
    }


def write_env_file(
    path: str | Path, keys: Keys, base_url: str, notify_url: str | None
) -> dict[str, str]:
    """Write the settings to ``path``, each key to a PEM file beside it; all mode 0600.

    The paths written are absolute, so the file works from any directory.
    """
    path = Path(path).expanduser().resolve()
    files = {
        "WECHATPAY_PRIVATE_KEY_PATH": ("private_key", private_pem(keys.merchant.private_key)),
        "WECHATPAY_PLATFORM_CERT_PATH": ("platform_cert", keys.certificate.pem),
        "WECHATPAY_PUBLIC_KEY_PATH": ("public_key", keys.public_key.pem),
    }
    settings = _settings(keys, base_url, notify_url)
    for variable, (name, _) in files.items():
        settings[variable] = str(path.with_name(f"{path.name}.{name}.pem"))
    content = shell_lines(settings).encode()
    for variable, (_, pem) in files.items():
        _write_private(Path(settings[variable]), pem)
    _write_private(path, content)
    return settings


def shell_lines(settings: dict[str, str]) -> str:
    """``NAME='value'`` lines, as both a shell and python-dotenv read them."""
    for name, value in settings.items():
        if "'" in value or "\\" in value:
            raise ValueError(
                f"{name} may hold neither ' nor \\, which shells and dotenv files read "
                f"differently: {value!r}; choose another path or URL"
            )
    return "".join(f"{name}='{value}'\n" for name, value in settings.items())


def _settings(keys: Keys, base_url: str, notify_url: str | None) -> dict[str, str]:
    merchant = keys.merchant
    settings = {
        "WECHATPAY_BASE_URL": base_url,
        "WECHATPAY_SANDBOX_CLOCK": f"{base_url}/_sandbox/clock",
        "WECHATPAY_MCHID": merchant.mchid,
        "WECHATPAY_APPID": merchant.appid,
        "WECHATPAY_SERIAL_NO": merchant.serial_no,
        "WECHATPAY_APIV3_KEY": merchant.apiv3_key.decode(),
        "WECHATPAY_PUBLIC_KEY_ID": keys.public_key.serial,
    }
    return settings | ({} if notify_url is None else {"WECHATPAY_NOTIFY_URL": notify_url})


def _write_private(path: Path, content: bytes) -> None:
    # Mode first, content second: at no moment can another user read the key.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        os.fchmod(descriptor, 0o600)
        file.write(content)
