"""Fixtures of the whole suite; builders of deliveries are in ``deliveries.py``."""

from __future__ import annotations

import pytest
from hypothesis import settings

from deliveries import Clock, Recorder
from wechatpay_kit import SqliteStore

# No deadline: a slow machine is no fault. No database: a test leaves nothing in the checkout.
settings.register_profile("suite", deadline=None, database=None)
settings.load_profile("suite")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def store(tmp_path):
    store = SqliteStore(tmp_path / "wechatpay.db")
    yield store
    store.close()
