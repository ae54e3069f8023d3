"""The ``wechatpay-kit`` command.

Knows how to find commands; has none of its own. Packages add theirs by the entry-point group
``wechatpay_kit.commands``, so the core imports no sandbox. Needs the extra ``cli``.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; without click, say which extra brings it and exit 1."""
    try:
        from .group import wechatpay_kit  # noqa: PLC0415 - so that a missing click is explained
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.stderr.write(
            "wechatpay-kit needs click, which is not installed: pip install 'wechatpay-kit[cli]' "
            "(for the sandbox and the demo: 'wechatpay-kit[sandbox]')\n"
        )
        raise SystemExit(1) from None
    wechatpay_kit(prog_name="wechatpay-kit")
