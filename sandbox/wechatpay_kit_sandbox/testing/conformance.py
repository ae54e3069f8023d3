"""What every adapter must pass: the table of answers, byte for byte, from outside.

Knows answers and what hooks were told; knows nothing of the framework, which one fixture mounts.
See docs/adapters.md. No test looks at a clock or sleeps.
"""

from __future__ import annotations

import itertools
import json
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import TYPE_CHECKING, Any

from wechatpay_kit.facts import paid_fact
from wechatpay_kit.models import Transaction, decode
from wechatpay_kit.records import OrderRecord

from .bodies import arbitrary, embellished
from .deliveries import Deliveries
from .refusals import REFUSALS, SIGNATURE_HEADERS, Refusal, fail_body, padded
from .shop import MAX_BODY, Shop

try:
    import pytest
except ModuleNotFoundError as error:
    if error.name != "pytest":
        raise
    raise ImportError(
        "the conformance suite needs pytest, which is not installed: pip install pytest",
        name="pytest",
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from wechatpay_kit.facts import Fact

    from .deliveries import Headers
    from .sending import Sender

    Mount = Callable[[Shop], AbstractContextManager[Sender]]

__all__ = ["NOTIFY", "AdapterConformance"]

NOTIFY = "/wechatpay/notify"
PARTS, BODIES_A_PART = 10, 50  # 1,000 bodies, over both shops

_SHOPS = (
    pytest.param({"receive_only": True, "debug": False}, id="receive-only"),
    pytest.param({"receive_only": False, "debug": True}, id="debugged"),
)
_RELAXING = (
    ("Host", "127.0.0.1"),
    ("Host", "localhost:1"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Host", "api.mch.weixin.qq.com"),
    ("X-Forwarded-Proto", "https"),
    ("Forwarded", "for=127.0.0.1;host=localhost"),
    ("X-Real-IP", "101.226.103.1"),
    ("X-HTTP-Method-Override", "GET"),
    ("Authorization", "WECHATPAY2-SHA256-RSA2048 x"),
    ("Cookie", "session=admin"),
)
_CONTENT_TYPES = (
    "application/json",
    "application/json; charset=gbk",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/plain; charset=utf-16",
    "",
)
_WRONG_PATHS = (
    "/",
    "/notify",
    "/wechatpay/other",
    f"{NOTIFY}/",
    f"{NOTIFY}/more",
    f"{NOTIFY}x",
    "/wechatpay/Notify",
)
_numbers = itertools.count(1)


class AdapterConformance:
    """What to inherit, in a module with the fixture ``mount`` (of scope ``module`` or wider).

    ::

        class TestMyAdapter(AdapterConformance):
            pass

        @pytest.fixture(scope="module")
        def mount():
            return mounted  # mounted(shop) -> context manager of a Sender

    ``mounted`` serves ``shop.kit()`` at ``/wechatpay/notify``, with ``shop.debug`` on or off. Each
    shop is mounted once for the class, so that a server which takes a second to start is no burden.
    """

    @pytest.fixture(scope="class", params=_SHOPS)
    @classmethod
    def visit(
        cls,
        request: pytest.FixtureRequest,
        mount: Mount,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Iterator[Visit]:
        """A mounted shop, and the way to it."""
        weixin = _weixin()
        shop = Shop(
            tmp_path_factory.mktemp("conformance"),
            environ=weixin.environment(f"https://shop.example{NOTIFY}"),
            now=weixin.now().timestamp(),
            **request.param,
        )
        shop.save()
        with mount(shop) as send:
            visit = Visit(shop, send, weixin)
            yield visit
            visit.store.close()

    @pytest.fixture
    def doubled_headers_arrive(self) -> bool:
        """Override to return False where what stands before you keeps one of two equal headers."""
        return True

    # Refused before settlement

    @pytest.mark.parametrize("refusal", REFUSALS, ids=[row.name for row in REFUSALS])
    def test_refused(self, visit: Visit, refusal: Refusal) -> None:
        told = visit.delivers(*refusal.make(visit.weixin), *refusal.answer(visit.shop))
        _same([line["hook"] for line in told], ["on_rejected"], "hooks told")
        _same(told[0]["reason"], refusal.reason_at(visit.shop), "reason")
        _same(told[0]["mchid"], visit.weixin.mchid, "mchid")

    @pytest.mark.parametrize("name", SIGNATURE_HEADERS)
    def test_a_doubled_signature_header_is_refused(
        self,
        visit: Visit,
        name: str,
        doubled_headers_arrive: bool,  # noqa: FBT001 - a fixture
    ) -> None:
        if not doubled_headers_arrive:
            pytest.skip("one of two equal headers is lost before it gets here")
        headers, body = visit.weixin.delivery()
        twice = [*headers, (name, dict(headers)[name])]
        visit.delivers(twice, body, 400, "a Wechatpay-* header is malformed")

    # Accepted, at the edge

    @pytest.mark.parametrize("size", [MAX_BODY - 1, MAX_BODY])
    def test_a_body_at_the_limit_is_accepted(self, visit: Visit, size: int) -> None:
        number = visit.places()
        visit.is_accepted(*padded(visit.weixin, size, number), "on_paid", "awaited on_paid")

    @pytest.mark.parametrize("seconds", [-300, 300])
    def test_a_signature_at_the_edge_of_the_window_is_accepted(
        self, visit: Visit, seconds: int
    ) -> None:
        weixin = visit.weixin
        body = weixin.envelope(weixin.transaction(visit.places()))
        timestamp = str(int(weixin.now().timestamp()) + seconds)
        visit.is_accepted(
            weixin.signed(body, timestamp=timestamp), body, "on_paid", "awaited on_paid"
        )

    @pytest.mark.parametrize("spell", [str.lower, str.upper, str.title])
    def test_header_names_are_read_in_any_case(
        self, visit: Visit, spell: Callable[[str], str]
    ) -> None:
        headers, body = visit.pays(visit.places())
        visit.is_accepted(
            [(spell(name), value) for name, value in headers], body, "on_paid", "awaited on_paid"
        )

    def test_a_query_is_no_part_of_the_path(self, visit: Visit) -> None:
        delivery = visit.pays(visit.places())
        visit.is_accepted(*delivery, "on_paid", "awaited on_paid", path=f"{NOTIFY}?from=wechat")

    # Settled

    def test_a_payment_fires_once_plain_and_async_hooks_alike(self, visit: Visit) -> None:
        delivery = visit.pays(visit.places())
        visit.is_accepted(*delivery, "on_paid", "awaited on_paid")
        visit.is_accepted(*delivery, "on_duplicate")

    def test_a_refund_fires_once_a_status(self, visit: Visit) -> None:
        weixin, number = visit.weixin, visit.places()
        visit.is_accepted(*visit.pays(number), "on_paid", "awaited on_paid")
        refunded = weixin.refund(f"R{number}", out_trade_no=number)
        delivery = weixin.delivery(refunded, "REFUND.SUCCESS")
        visit.is_accepted(*delivery, "on_refund")
        visit.is_accepted(*delivery, "on_duplicate")

    def test_a_notification_of_another_kind_is_handed_on(self, visit: Visit) -> None:
        content = {"mchid": visit.weixin.mchid, "number": next(_numbers)}
        visit.is_accepted(*visit.weixin.delivery(content, "SOMETHING.NEW"), "on_notification")

    def test_an_order_that_is_held_elsewhere_is_busy(self, visit: Visit) -> None:
        number = visit.places()
        delivery = visit.pays(number)
        with suppress(_LetGo), visit.store.claim(visit.fact_about(number), now=visit.now):
            _same(visit.delivers(*delivery, 503, "busy, come again"), [], "hooks told")
            raise _LetGo
        visit.is_accepted(*delivery, "on_paid", "awaited on_paid")

    def test_a_store_that_cannot_be_reached_is_503(self, visit: Visit) -> None:
        told = visit.delivers(*visit.pays(visit.places("DOWN")), 503, "busy, come again")
        _same(told, [], "hooks told")

    def test_a_hook_that_raises_is_500_and_the_delivery_comes_again(self, visit: Visit) -> None:
        delivery = visit.pays(visit.places("RAISE"))
        visit.delivers(*delivery, 500, "a hook failed, come again")
        hooks = visit.is_accepted(*delivery)
        if "on_paid" not in hooks:
            raise AssertionError(f"the hook that had raised did not run again: {hooks}")

    @pytest.mark.parametrize("prefix", ["T", "HANDLED"])
    def test_money_for_an_order_that_nobody_knows_is_a_conflict(
        self, visit: Visit, prefix: str
    ) -> None:
        visit.is_a_conflict(prefix, visit.pays(visit.number(prefix)), "unknown_order")

    @pytest.mark.parametrize("prefix", ["T", "HANDLED"])
    def test_another_amount_than_the_orders_is_a_conflict(self, visit: Visit, prefix: str) -> None:
        visit.is_a_conflict(prefix, visit.pays(visit.places(prefix), total=1), "mismatch")

    # The very bytes

    @pytest.mark.parametrize("part", range(PARTS))
    def test_generated_bodies_reach_the_verifier_byte_for_byte(
        self, visit: Visit, part: int
    ) -> None:
        """The signature is over the bytes as made here: one that changed on the way is a 401."""
        weixin, style = visit.weixin, Random(part + PARTS * visit.shop.debug)  # noqa: S311 - no secret
        for _ in range(BODIES_A_PART):
            is_json = style.random() < 0.5  # noqa: PLR2004 - as often as not
            content = {"mchid": weixin.mchid, "number": next(_numbers)}
            envelope = weixin.envelope(content, "SOMETHING.NEW")
            body = embellished(envelope, style) if is_json else arbitrary(style)
            headers = [
                (name, style.choice(_CONTENT_TYPES) if name == "Content-Type" else value)
                for name, value in weixin.signed(body)
            ]
            status, _, _ = visit.send("POST", NOTIFY, headers, body)
            _same(status, 204 if is_json else 400, f"status for {headers}, {body!r}")

    # Methods, paths, and what relaxes nothing

    @pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
    def test_another_method_is_405(self, visit: Visit, method: str) -> None:
        told = visit.shop.told()
        status, headers, _ = visit.send(method, NOTIFY, *visit.pays(visit.places()))
        _same(status, 405, "status")
        _same("POST" in _named(headers, "allow"), True, "POST in Allow")  # noqa: FBT003 - a value
        _same(visit.shop.told(), told, "hooks told")

    @pytest.mark.parametrize("path", _WRONG_PATHS)
    def test_another_path_is_404(self, visit: Visit, path: str) -> None:
        told = visit.shop.told()
        _same(visit.send("POST", path, *visit.pays(visit.places()))[0], 404, "status")
        _same(visit.shop.told(), told, "hooks told")

    @pytest.mark.parametrize("header", _RELAXING, ids=lambda header: ": ".join(header))
    def test_no_header_relaxes_a_check(self, visit: Visit, header: tuple[str, str]) -> None:
        headers, body = visit.pays(visit.places())
        headers = [header, *headers]
        visit.delivers(headers, body + b" ", 401, "signature does not verify")
        unsigned = [pair for pair in headers if not pair[0].startswith("Wechatpay-")]
        visit.delivers(unsigned, body, 400, "a Wechatpay-* header is missing")
        visit.is_accepted(headers, body, "on_paid", "awaited on_paid")


class Visit:
    """A mounted shop, who delivers to it, and what must come of that."""

    def __init__(self, shop: Shop, send: Sender, weixin: Deliveries) -> None:
        self.shop, self.send, self.weixin = shop, send, weixin
        self.store = shop.store()
        self.now = weixin.now()

    def number(self, prefix: str = "T") -> str:
        return f"{prefix}{next(_numbers):06}"

    def places(self, prefix: str = "T") -> str:
        """The number of an order of 100 fen that the shop's store knows."""
        number = self.number(prefix)
        self.store.add_order(
            OrderRecord(
                mchid=self.weixin.mchid,
                out_trade_no=number,
                appid=self.weixin.appid,
                total=100,
                currency="CNY",
                state="open",
                created_at=self.now,
            )
        )
        return number

    def pays(self, number: str, total: int = 100) -> tuple[Headers, bytes]:
        return self.weixin.delivery(self.weixin.transaction(number, total))

    def fact_about(self, number: str) -> Fact:
        """What :meth:`pays` tells."""
        paid = json.dumps(self.weixin.transaction(number)).encode()
        return paid_fact(
            self.weixin.mchid, decode(paid, Transaction), None, "notification", self.now
        )

    def delivers(
        self, headers: Headers, body: bytes, status: int, message: str
    ) -> list[dict[str, str]]:
        """What hooks are told by a delivery that is answered FAIL."""
        before = len(self.shop.told())
        reply = self.send("POST", NOTIFY, headers, body)
        _same((reply[0], reply[2]), (status, fail_body(message)), "status and body")
        _same(_named(reply[1], "content-type"), ["application/json"], "Content-Type")
        return self.shop.told()[before:]

    def is_accepted(
        self, headers: Headers, body: bytes, *hooks: str, path: str = NOTIFY
    ) -> list[str]:
        """The hooks that are told by a delivery that is answered 204; ``hooks``, if any is said."""
        before = len(self.shop.told())
        reply = self.send("POST", path, headers, body)
        _same((reply[0], reply[2]), (204, b""), "status and body")
        _same(_named(reply[1], "content-type"), [], "Content-Type of no body")
        told = [line["hook"] for line in self.shop.told()[before:]]
        if hooks:
            _same(sorted(told), sorted(hooks), "hooks told")
        return told

    def is_a_conflict(self, prefix: str, delivery: tuple[Headers, bytes], reason: str) -> None:
        """204 where a plugin handles it, else an alarm."""
        before = len(self.shop.told())
        if prefix == "HANDLED":
            self.is_accepted(*delivery, "on_conflict")
        else:
            self.delivers(*delivery, 500, "conflict, an operator must look")
        _same(self.shop.told()[before]["reason"], reason, "reason")


@cache
def _weixin() -> Deliveries:
    """Who sends: one merchant's keys, and a clock that stands still."""
    now = datetime.now(UTC)
    return Deliveries(clock=lambda: now)


class _LetGo(Exception):  # noqa: N818 - lets a claim go, nothing is wrong
    pass


def _named(headers: Any, wanted: str) -> list[str]:
    return [value for name, value in headers if name.lower() == wanted]


def _same(found: object, expected: object, what: str) -> None:
    """As assert, which pytest explains in test modules only."""
    if found != expected:
        raise AssertionError(f"{what}: {found!r}, expected {expected!r}")
