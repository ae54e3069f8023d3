"""What a refused delivery must look like from outside: the table of design.md, Receiving.

Import as ``from core.refusals import …``. The statuses are written out again here, and not taken
from the code under test.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import pytest

from deliveries import KEYS, MCHID, Clock, Recorder, receiving_kit
from wechatpay_kit_sandbox.keys import private_pem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from deliveries import Headers
    from wechatpay_kit import Answer, Kit

# reason: step, status
ROWS = {
    "too_large": ("size", 413),
    "missing_header": ("headers", 400),
    "malformed_header": ("headers", 400),
    "clock": ("clock", 401),
    "unknown_key": ("key", 401),
    "key_refresh": ("key", 503),
    "bad_signature": ("signature", 401),
    "undecodable": ("content", 400),
    "undecryptable": ("content", 400),
    "other_merchant": ("merchant", 422),
    "not_success": ("merchant", 422),
}
SETTLING = frozenset({"on_paid", "on_refund", "on_closed", "on_conflict"})
_BEFORE_SERIAL = frozenset({"too_large", "missing_header", "malformed_header"})


class Case(NamedTuple):
    """A delivery, and the reason for which it is refused (None where it is accepted)."""

    name: str
    reason: str | None
    headers: Headers
    body: bytes

    @property
    def serial(self) -> str | None:
        """What ``on_rejected`` must name: the serial as received, once it is known to be one."""
        if self.reason in _BEFORE_SERIAL:
            return None
        return next(value for name, value in self.headers if name.lower() == "wechatpay-serial")


class UntouchedStore:
    """A store that must not be asked anything: a refused delivery never gets that far."""

    def __getattr__(self, name):
        raise AssertionError(f"a refused delivery reached the store: {name}")


def table(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Parametrize over ``cases``, whose names must be different."""
    cases = list(cases)
    names = [case.name for case in cases]
    assert len(names) == len(set(names)), "two cases have one name"
    return pytest.mark.parametrize("case", cases, ids=names)


def refuse(case: Case, *, clock: Clock | None = None, **options: object) -> Answer:
    """Deliver ``case`` to a fresh kit and check all that a refusal promises."""
    recorder = Recorder()
    kit = receiving_kit(UntouchedStore(), recorder, clock=clock, **options)
    answer = kit.receiver.receive(case.headers, case.body)
    check_refusal(case, answer, recorder, kit)
    return answer


def check_refusal(case: Case, answer: Answer, recorder: Recorder, kit: Kit) -> None:
    step, status = ROWS[case.reason]
    assert answer.status == status, f"{case.name}: {answer}; told {recorder.events}"
    assert recorder.names() == ["on_rejected"], case.name
    event = recorder.of("on_rejected")[0]
    told = (event.reason, event.step, event.status, event.serial, event.size)
    assert told == (case.reason, step, status, case.serial, len(case.body)), case.name
    assert event.mchid == MCHID
    assert_fail_body(answer)
    assert_leaks_nothing(answer.body, kit)


def assert_fail_body(answer: Answer) -> None:
    said = json.loads(answer.body)
    assert said.keys() == {"code", "message"}, said
    assert said["code"] == "FAIL", said
    assert said["message"], said
    assert said["message"].isascii(), said
    assert dict(answer.headers) == {"Content-Type": "application/json"}, answer.headers


def assert_leaks_nothing(text: bytes, kit: Kit) -> None:
    """Neither a held serial nor a line of a key stands in what a sender gets to read."""
    pems = [private_pem(KEYS.merchant.private_key), KEYS.certificate.pem, KEYS.public_key.pem]
    secrets = [
        KEYS.merchant.apiv3_key,
        *(serial.encode() for serial in kit.merchant.keys.serials),
        *(line for pem in pems for line in pem.splitlines() if not line.startswith(b"-----")),
    ]
    for secret in secrets:
        assert secret not in text, text
