"""When WeChat Pay's keys are fetched, and what those who wait are told meanwhile."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import warnings

import pytest

from core.refusals import Case, UntouchedStore, check_refusal
from deliveries import (
    KEYS,
    MCHID,
    NOW,
    Clock,
    Expecting,
    Recorder,
    delivery,
    merchant,
    signed,
)
from wechatpay_kit import Answer, KeyRing, Kit, Receiver, TransportError, VerificationKey
from wechatpay_kit.plugins import Plugins
from wechatpay_kit.receiver import NotificationKeys
from wechatpay_kit.refresher import KeyRefresher, Refresh
from wechatpay_kit.settlement import Settlement

PUBLIC = VerificationKey.from_public_key(KEYS.public_key.serial, KEYS.public_key.pem)
(CERTIFICATE,) = VerificationKey.from_certificates(KEYS.certificate.pem)
HOUR = 3600.0
LONG = 20  # seconds that no test waits unless it fails


class Seconds:
    """A monotonic clock that a test turns."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Gateway:
    """What is fetched from: counts, fails or hangs as a test wants."""

    def __init__(self, *brings: VerificationKey) -> None:
        self.brings = brings
        self.asked: list[float] = []
        self.error: Exception | None = None
        self.started, self.may_answer = threading.Event(), threading.Event()
        self.may_answer.set()

    def __call__(self, seconds: float):
        self.asked.append(seconds)
        self.started.set()
        assert self.may_answer.wait(LONG)
        if self.error:
            raise self.error
        return self.brings


@pytest.fixture
def seconds():
    return Seconds()


@pytest.fixture
def gateway():
    gateway = Gateway(CERTIFICATE)
    yield gateway
    gateway.may_answer.set()  # lets a fetch that hangs end
    for thread in threading.enumerate():
        if thread.name == "wechatpay-kit-keys":
            thread.join(LONG)


@pytest.fixture
def ring():
    return KeyRing([PUBLIC])


@pytest.fixture
def refresher(ring, gateway, seconds):
    return KeyRefresher(ring, gateway, monotonic=seconds)


def test_a_refresh_adds_what_is_fetched_and_keeps_what_was_held(refresher, ring, gateway):
    assert refresher.refresh() is Refresh.DONE
    assert ring.serials == (PUBLIC.serial, CERTIFICATE.serial)
    assert gateway.asked == [2.0]


@pytest.mark.parametrize("outcome", [Refresh.DONE, Refresh.FAILED])
def test_there_is_at_most_one_fetch_a_minute_whatever_its_outcome(
    outcome, refresher, gateway, seconds
):
    gateway.error = TransportError("unreachable") if outcome is Refresh.FAILED else None
    assert refresher.refresh() is outcome
    seconds.now += 59.9
    for _ in range(100):
        assert refresher.refresh() is Refresh.LIMITED
    assert len(gateway.asked) == 1
    seconds.now += 0.1
    assert refresher.refresh() is outcome
    assert len(gateway.asked) == 2


@pytest.mark.parametrize("error", [TransportError("x"), OSError(), ValueError(), AssertionError()])
def test_a_failed_fetch_drops_no_key(error, refresher, ring, gateway):
    gateway.error = error
    assert refresher.refresh() is Refresh.FAILED
    assert ring.serials == (PUBLIC.serial,)
    assert ring.get(PUBLIC.serial, NOW) is PUBLIC


def test_a_fetch_that_brings_nothing_drops_no_key(refresher, ring, gateway):
    gateway.brings = ()
    assert refresher.refresh() is Refresh.DONE
    assert ring.serials == (PUBLIC.serial,)


def test_a_fetch_that_hangs_holds_its_caller_for_two_seconds_and_nobody_else(
    refresher, ring, gateway, seconds
):
    gateway.may_answer.clear()
    began = time.monotonic()
    assert refresher.refresh() is Refresh.FAILED
    assert 1.9 < time.monotonic() - began < 4

    began = time.monotonic()
    assert refresher.refresh() is Refresh.BUSY
    seconds.now += 3600  # even then: one at a time
    assert refresher.refresh() is Refresh.BUSY
    assert time.monotonic() - began < 0.5
    assert len(gateway.asked) == 1

    gateway.may_answer.set()  # what comes late is kept all the same
    wait_until(lambda: CERTIFICATE.serial in ring.serials)


def test_while_one_fetches_all_others_are_told_at_once(refresher, gateway):
    gateway.may_answer.clear()
    first: list[Refresh] = []
    leader = threading.Thread(target=lambda: first.append(refresher.refresh()))
    leader.start()
    assert gateway.started.wait(LONG)

    others: list[Refresh] = []
    crowd = [threading.Thread(target=lambda: others.append(refresher.refresh())) for _ in range(64)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join(LONG)  # all return while the fetch still hangs
    assert others == [Refresh.BUSY] * 64
    assert first == []

    gateway.may_answer.set()
    leader.join(LONG)
    assert first == [Refresh.DONE]
    assert len(gateway.asked) == 1


def test_of_many_at_once_one_fetches(refresher, gateway):
    barrier = threading.Barrier(32)
    outcomes: list[Refresh] = []

    def ask() -> None:
        barrier.wait(LONG)
        outcomes.append(refresher.refresh())

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert len(gateway.asked) == 1
    assert outcomes.count(Refresh.DONE) == 1
    assert set(outcomes) <= {Refresh.DONE, Refresh.BUSY, Refresh.LIMITED}


def test_a_ring_over_12_hours_old_is_fetched_ahead_of_need(refresher, ring, gateway, seconds):
    seconds.now += 12 * HOUR
    refresher.refresh_if_old()
    assert gateway.asked == []
    seconds.now += 1
    refresher.refresh_if_old()
    wait_until(lambda: CERTIFICATE.serial in ring.serials)
    wait_until(lambda: refresher.refresh() is Refresh.LIMITED)  # the flight has landed

    seconds.now += 11 * HOUR
    refresher.refresh_if_old()
    assert len(gateway.asked) == 1
    seconds.now += HOUR + 1
    refresher.refresh_if_old()
    wait_until(lambda: len(gateway.asked) == 2)


def test_fetching_ahead_of_need_waits_for_nothing(refresher, gateway, seconds):
    gateway.may_answer.clear()
    seconds.now += 13 * HOUR
    began = time.monotonic()
    for _ in range(50):
        refresher.refresh_if_old()
    assert time.monotonic() - began < 1
    assert gateway.started.wait(LONG)
    assert len(gateway.asked) == 1


def test_an_old_ring_that_cannot_be_fetched_is_asked_for_once_a_minute(refresher, gateway, seconds):
    gateway.error = TransportError("unreachable")
    seconds.now += 13 * HOUR
    refresher.refresh_if_old()
    wait_until(lambda: refresher.refresh() is Refresh.LIMITED)
    refresher.refresh_if_old()
    assert len(gateway.asked) == 1
    seconds.now += 60
    refresher.refresh_if_old()
    wait_until(lambda: len(gateway.asked) == 2)


def test_a_thread_that_cannot_be_started_does_not_end_refreshing_for_ever(
    refresher, gateway, seconds, monkeypatch
):
    def no_thread(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with contextlib.suppress(RuntimeError):  # what counts is the next minute
            assert refresher.refresh() is Refresh.FAILED
    seconds.now += 61
    assert refresher.refresh() is Refresh.DONE
    assert len(gateway.asked) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_during_a_fetch_does_not_end_refreshing_in_the_child(refresher, gateway, seconds):
    gateway.may_answer.clear()
    leader = threading.Thread(target=refresher.refresh)
    leader.start()
    assert gateway.started.wait(LONG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on: this fork is the point
        child = os.fork()
    if child == 0:
        seconds.now += 60
        gateway.may_answer = threading.Event()
        gateway.may_answer.set()
        os._exit(0 if refresher.refresh() is Refresh.DONE else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    gateway.may_answer.set()
    leader.join(LONG)


# Seen from outside: what the receiver answers


class Shop:
    """A receiver that holds the public key alone, and may fetch the certificate."""

    def __init__(self, store, gateway, seconds) -> None:
        self.recorder = Recorder()
        plugins = Plugins()
        for plugin in (self.recorder, Expecting()):
            plugins.register(plugin)
        self.merchant = merchant(platform_cert=None)
        clock = Clock()
        self.receiver = Receiver(
            mchid=MCHID,
            keys=NotificationKeys(self.merchant.keys, self.merchant.decryptor),
            settlement=Settlement(mchid=MCHID, store=store, plugins=plugins, business_clock=clock),
            plugins=plugins,
            clock=clock,
            refresher=KeyRefresher(self.merchant.keys, gateway, monotonic=seconds),
        )

    def receive(self, case: Case) -> Answer:
        return self.receiver.receive(case.headers, case.body)

    def refuse(self, case: Case) -> None:
        self.recorder.events.clear()
        check_refusal(case, self.receive(case), self.recorder, self)


def by_certificate(reason: str | None = None) -> Case:
    _, body = delivery()
    return Case("by certificate", reason, signed(body, key=KEYS.certificate), body)


@pytest.fixture
def shop(store, gateway, seconds):
    return Shop(store, gateway, seconds)


def test_after_a_rotation_the_first_delivery_by_the_new_key_is_accepted(shop, gateway):
    assert shop.receive(by_certificate()) == Answer(204)
    assert shop.receive(by_certificate()) == Answer(204)
    assert len(gateway.asked) == 1
    assert shop.recorder.names() == ["on_paid", "on_duplicate"]


def test_a_fetched_ring_that_still_lacks_the_serial_is_401(shop, gateway):
    gateway.brings = ()
    shop.refuse(by_certificate("unknown_key"))
    assert len(gateway.asked) == 1


def test_a_failed_fetch_is_503(shop, gateway):
    gateway.error = TransportError("unreachable")
    shop.refuse(by_certificate("key_refresh"))


def test_a_limited_fetch_is_503(shop, gateway, seconds):
    gateway.error = TransportError("unreachable")
    shop.refuse(by_certificate("key_refresh"))
    gateway.error = None
    seconds.now += 59
    shop.refuse(by_certificate("key_refresh"))
    assert len(gateway.asked) == 1
    seconds.now += 1
    assert shop.receive(by_certificate()) == Answer(204)


def test_a_fetch_in_flight_is_503_at_once(shop, gateway, seconds):
    gateway.may_answer.clear()
    seconds.now += 13 * HOUR  # fetched ahead of need, by this very delivery
    began = time.monotonic()
    shop.refuse(by_certificate("key_refresh"))
    assert time.monotonic() - began < 1
    gateway.may_answer.set()
    wait_until(lambda: shop.receive(by_certificate()) == Answer(204))


def test_known_keys_are_not_held_up_by_a_fetch_that_hangs(shop, gateway, seconds):
    gateway.may_answer.clear()
    seconds.now += 13 * HOUR
    began = time.monotonic()
    assert shop.receiver.receive(*delivery()) == Answer(204)
    assert time.monotonic() - began < 1
    assert gateway.started.wait(LONG)


def test_a_bad_signature_or_a_stale_clock_fetches_nothing(shop, gateway):
    headers, body = delivery()
    shop.refuse(Case("forged", "bad_signature", headers, body + b" "))
    shop.refuse(Case("stale", "clock", signed(body, key=KEYS.certificate, timestamp="1"), body))
    shop.refuse(Case("bare", "missing_header", [], body))
    assert gateway.asked == []


def test_strangers_serials_cost_one_fetch_a_minute(shop, gateway):
    _, body = delivery()
    for number in range(20):
        headers = signed(body, key=KEYS.certificate, serial=f"{number + 1:040}")
        assert shop.receiver.receive(headers, body).status in {401, 503}
    assert len(gateway.asked) == 1


# Which kit fetches at all


def test_in_public_key_mode_nothing_is_ever_fetched():
    recorder = Recorder()
    kit = Kit(
        merchant(platform_cert=None), plugins=[recorder], store=UntouchedStore(), clock=Clock()
    )
    case = by_certificate("unknown_key")
    check_refusal(case, kit.receiver.receive(case.headers, case.body), recorder, kit)
    assert "client" not in vars(kit)


def test_where_only_receiving_is_set_up_nothing_is_ever_fetched():
    recorder = Recorder()
    shop = merchant(receive_only=True, private_key=None, public_key=None, public_key_id=None)
    kit = Kit(shop, plugins=[recorder], store=UntouchedStore(), clock=Clock())
    headers, body = delivery()
    case = Case("by the public key", "unknown_key", headers, body)
    check_refusal(case, kit.receiver.receive(headers, body), recorder, kit)


def test_in_certificate_mode_an_unreachable_gateway_is_503():
    recorder = Recorder()
    shop = merchant(public_key=None, public_key_id=None, base_url="http://127.0.0.1:1")
    kit = Kit(shop, plugins=[recorder], store=UntouchedStore(), clock=Clock())
    headers, body = delivery()
    case = Case("by the public key", "key_refresh", headers, body)
    check_refusal(case, kit.receiver.receive(headers, body), recorder, kit)
    kit.client.close()


def wait_until(happened) -> None:
    """For what another thread does right now; fails after ``LONG`` seconds."""
    end = time.monotonic() + LONG
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)
