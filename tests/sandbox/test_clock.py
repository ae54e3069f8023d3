"""The business clock: turned forward, sped up, never back; and what falls due on it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from wechatpay_kit_sandbox.agenda import Agenda
from wechatpay_kit_sandbox.clock import BusinessClock, rfc3339

START = datetime(2026, 11, 24, 6, 0, tzinfo=UTC)


class Ticks:
    """Monotonic time that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def ticks():
    return Ticks()


@pytest.fixture
def clock(ticks):
    return BusinessClock(wall=START.timestamp, monotonic=ticks)


def test_starts_at_wall_time_and_shows_beijing(clock):
    assert clock.now() == START
    assert rfc3339(clock.now()) == "2026-11-24T14:00:00+08:00"


def test_runs_with_real_time(clock, ticks):
    ticks.now += 10
    assert clock.now() == START + timedelta(seconds=10)


def test_rate_counts_from_when_it_is_set(clock, ticks):
    ticks.now += 10
    clock.set_rate(60)
    ticks.now += 10
    assert clock.now() == START + timedelta(seconds=610)
    clock.set_rate(0)
    ticks.now += 10
    assert clock.now() == START + timedelta(seconds=610)


@pytest.mark.parametrize("rate", [-1, float("nan"), float("inf")])
def test_rate_that_is_none(clock, rate):
    with pytest.raises(ValueError, match="rate must be"):
        clock.set_rate(rate)


def test_never_goes_back(clock):
    clock.move_to(START + timedelta(hours=1))
    clock.move_to(START)
    assert clock.now() == START + timedelta(hours=1)


def test_turning_runs_what_is_due_in_order_each_at_its_moment(clock):
    agenda, seen = Agenda(clock), []

    def note(name):
        return lambda: seen.append((name, clock.now() - START))

    def again():
        seen.append(("again", clock.now() - START))
        agenda.add(START + timedelta(seconds=25), note("added on the way"))

    agenda.add(START + timedelta(seconds=30), note("third"))
    agenda.add(START + timedelta(seconds=10), note("first"))
    agenda.add(START + timedelta(seconds=10), note("second"))
    agenda.add(START + timedelta(seconds=20), again)
    agenda.add(START + timedelta(seconds=31), note("not yet"))
    agenda.turn_to(START + timedelta(seconds=30))
    assert [(name, int(at.total_seconds())) for name, at in seen] == [
        ("first", 10),
        ("second", 10),
        ("again", 20),
        ("added on the way", 25),
        ("third", 30),
    ]
    assert clock.now() == START + timedelta(seconds=30)


def test_task_that_fails_stops_nothing(clock, caplog):
    agenda, seen = Agenda(clock), []
    agenda.add(START, lambda: 1 / 0)
    agenda.add(START, lambda: seen.append(1))
    agenda.run_due()
    assert seen == [1]
    assert "a task of the sandbox failed" in caplog.text


def test_due_tasks_run_by_themselves():
    clock = BusinessClock()
    agenda, ran = Agenda(clock), threading.Event()
    agenda.start()
    try:
        agenda.add(clock.now() + timedelta(milliseconds=20), ran.set)
        assert ran.wait(5)
    finally:
        agenda.stop()


def test_speeding_up_wakes_who_waits():
    clock = BusinessClock()
    agenda, ran = Agenda(clock), threading.Event()
    agenda.start()
    try:
        agenda.add(clock.now() + timedelta(hours=1), ran.set)
        agenda.set_rate(3600 * 100)
        assert ran.wait(5)
    finally:
        agenda.stop()


def test_stopped_agenda_runs_nothing(clock):
    agenda, seen = Agenda(clock), []
    agenda.add(START, lambda: seen.append(1))
    agenda.stop()
    agenda.run_due()
    assert seen == []
