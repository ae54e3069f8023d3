"""The whole story on this machine, told step by step, and every step checked.

Knows how a story is told; :mod:`.story` knows what happens and :mod:`.stage` who plays it.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from requests import RequestException

from wechatpay_kit import WeChatPayError
from wechatpay_kit_sandbox.errors import ControlError

from .shops import DESCRIPTIONS
from .stage import StoryError, captured_log, loopback_without_proxy, set_stage
from .story import STORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["StoryError", "tell"]

_SHOWN = 56  # characters of a long value


def tell(
    write: Callable[[str], None], *, adapter: str = "flask", notify_url: str | None = None
) -> None:
    """Tell the story to ``write``, a line a call; :class:`StoryError` at what did not happen.

    ``adapter`` is who receives (``flask``, ``starlette``, ``lambda``); where its extra is missing
    ``ImportError`` names it. ``notify_url`` is where the gateway delivers, instead of to the
    demo's own shop.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        log = stack.enter_context(captured_log())
        stack.enter_context(loopback_without_proxy())
        try:
            stage = set_stage(stack, log, adapter, notify_url)
        except (WeChatPayError, OSError) as error:
            raise StoryError(f"the stage could not be set: {error}") from error
        shop = DESCRIPTIONS[adapter]
        write(f"A sandbox of WeChat Pay and {shop}, talking HTTP on this machine.\n")
        _write_lines(write, [("sandbox", stage.sandbox.base_url), ("shop", stage.shop_url)])
        for number, (title, step) in enumerate(STORY, 1):
            write(f"\n{number:2}. {title}")
            try:
                _write_lines(write, step(stage))
            except (StoryError, WeChatPayError, ControlError, RequestException) as error:
                raise StoryError(f"{title}: {error}{log.ending()}") from error
    write(f"\nAll of it happened, each step checked, in {time.monotonic() - began:.1f} s.")


def _write_lines(write: Callable[[str], None], lines: Iterable[tuple[str, object]]) -> None:
    for name, value in lines:
        text = str(value)
        if len(text) > _SHOWN and " " not in text:
            text = f"{text[:_SHOWN]}… ({len(text)} characters)"
        write(f"    {name:14}  {text}")
