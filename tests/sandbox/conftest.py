from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor

import pytest

from sandbox.gateway_client import GatewayClient, Receiver
from wechatpay_kit_sandbox import Sandbox, generate_keys


@pytest.fixture(scope="session")
def keys():
    return generate_keys()


@pytest.fixture(scope="session")
def shared_sandbox(keys):
    """One gateway for tests that need no clock of their own; each takes numbers of its own."""
    with Sandbox(keys=keys) as sandbox:
        yield sandbox


@pytest.fixture(scope="session")
def shared_client(shared_sandbox):
    return GatewayClient(shared_sandbox.environment())


@pytest.fixture(scope="session")
def numbers():
    return (f"T{number:06}" for number in itertools.count(1))


@pytest.fixture
def number(numbers):
    return next(numbers)


@pytest.fixture(scope="session")
def stopping():
    """Where sandboxes are stopped; it takes each a fifth of a second that no test needs to wait."""
    with ThreadPoolExecutor(4) as pool:
        stopped = []
        yield lambda sandbox: stopped.append(pool.submit(sandbox.stop))
        for one in stopped:
            one.result()


@pytest.fixture
def sandbox(keys, stopping):
    sandbox = Sandbox(keys=keys).start()
    yield sandbox
    stopping(sandbox)


@pytest.fixture
def client(sandbox):
    return GatewayClient(sandbox.environment())


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.close()
