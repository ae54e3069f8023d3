"""All problems of a kit's settings at once, each by the name under which it was given."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from deliveries import KEYS, NOW, Recorder, merchant, receiving_kit
from wechatpay_kit import ConfigError, Kit, Merchant, hookimpl
from wechatpay_kit_sandbox.environment import environment

BASE = environment(KEYS, "http://127.0.0.1:9", "http://127.0.0.1:9/wechatpay/notify")
PREFIX = "WECHATPAY_"


class Listener:
    @hookimpl
    def on_paid(self, event):
        pass


LISTENER = Listener()


def settings(prefix=PREFIX, **changes):
    named = {name.removeprefix(PREFIX): value for name, value in BASE.items()} | changes
    return {f"{prefix}{name}": value for name, value in named.items() if value is not None}


def problems(make, *arguments, **options):
    with pytest.raises(ConfigError) as caught:
        make(*arguments, **options)
    return caught.value.problems


def named(found):
    return sorted(problem.split(" ")[0] for problem in found)


@pytest.mark.parametrize("prefix", [PREFIX, "SHOP2_"])
def test_merchant_plugins_and_store_are_reported_at_once(prefix):
    environ = settings(
        prefix,
        MCHID="x",
        APIV3_KEY="short",
        PLUGINS="nobody,no.such.module:plugin,os:nothing",
        STORE="postgresql://db/shop",
    )
    found = problems(Kit.from_env, prefix=prefix, environ=environ)
    wanted = ["APIV3_KEY", "MCHID", "PLUGINS", "PLUGINS", "PLUGINS", "STORE"]
    assert named(found) == [f"{prefix}{name}" for name in wanted]
    said = "\n".join(found)
    for part in ("nobody", "no.such.module", "os:nothing", "sqlite:////var/lib"):
        assert part in said
    assert "short" not in said


def test_a_relative_store_is_reported_with_the_rest_against_the_real_gateway():
    environ = settings(BASE_URL=None, SANDBOX_CLOCK=None, MCHID="x", STORE="sqlite:///shop.db")
    found = problems(Kit.from_env, environ=environ)
    assert {f"{PREFIX}STORE", f"{PREFIX}MCHID"} <= set(named(found))


def test_plugins_alone_are_a_problem_too():
    (found,) = problems(Kit.from_env, environ=settings(PLUGINS="nobody"))
    assert found.startswith(f"{PREFIX}PLUGINS ")


def test_a_store_object_takes_the_place_of_the_setting(store):
    environ = settings(PLUGINS=f"{__name__}:LISTENER", STORE="postgresql://db/shop")
    kit = Kit.from_env(environ=environ, store=store)
    kit.receiver.check_ready()
    assert kit.store is store
    kit.close()


def test_what_is_all_right_is_no_problem(tmp_path):
    environ = settings(STORE=f"sqlite:///{tmp_path}/shop.db", PLUGINS=f" {__name__}:LISTENER , ")
    kit = Kit.from_env(environ=environ)
    kit.receiver.check_ready()
    kit.close()


@pytest.mark.parametrize("field", ["PRIVATE_KEY", "PUBLIC_KEY", "PLATFORM_CERT"])
@pytest.mark.parametrize("what", ["nowhere", "a folder"])
def test_a_path_that_cannot_be_read_is_one_problem(field, what, tmp_path):
    path = tmp_path / "none.pem" if what == "nowhere" else tmp_path
    environ = settings(**{field: None, f"{field}_PATH": str(path)})
    (found,) = problems(Kit.from_env, environ=environ)
    assert found.startswith(f"{PREFIX}{field}_PATH ")
    assert str(path) in found


# Wrong types


@pytest.mark.parametrize(
    "field",
    [
        "mchid",
        "appid",
        "serial_no",
        "notify_url",
        "base_url",
        "backup_url",
        "sandbox_clock",
    ],
)
@pytest.mark.parametrize("value", [1900000001, ["x"]], ids=["int", "list"])
def test_a_setting_of_a_wrong_type_is_named(field, value):
    found = [p for p in problems(merchant, **{field: value}) if p.startswith(f"{field} ")]
    assert len(found) == 1
    assert "must be" in found[0]


@pytest.mark.parametrize("field", ["public_key_id", "public_key", "platform_cert", "apiv3_key"])
def test_a_credential_of_a_wrong_type_is_named(field):
    assert field in named(problems(merchant, **{field: 1900000001}))


WRONG = {
    "order_lifetime": [30, timedelta(0), timedelta(minutes=-1), "30"],
    "retention": [400, timedelta(days=1), None],
    "connect_timeout": ["3", 0, -1.0, None, float("nan")],
    "read_timeout": ["3", 0, -1.0, None, float("nan")],
}


@pytest.mark.parametrize(
    ("option", "value"), [(o, v) for o, values in WRONG.items() for v in values], ids=str
)
def test_an_option_of_a_wrong_type_or_size_is_named(option, value, store):
    (found,) = problems(receiving_kit, store, Recorder(), **{option: value})
    assert found.startswith(f"{option} must be ")


@pytest.mark.parametrize("value", ["2026-11-01", NOW.date()], ids=str)
def test_a_settle_since_that_is_no_datetime_is_named(value, store):
    (found,) = problems(receiving_kit, store, Recorder(), settle_since=value)
    assert found.startswith("settle_since must be ")


def test_a_naive_settle_since_is_named(store):
    naive = NOW.replace(tzinfo=None)
    (found,) = problems(receiving_kit, store, Recorder(), settle_since=naive)
    assert found.startswith("settle_since must be timezone-aware")


def test_a_sandboxs_store_that_is_none_is_named():
    (found,) = problems(Kit.from_env, environ=settings(STORE="postgresql://db/shop"))
    assert found.startswith(f"{PREFIX}STORE ")


def test_all_wrong_options_are_named_at_once(store):
    found = problems(
        receiving_kit, store, **{option: values[0] for option, values in WRONG.items()}
    )
    assert named(found) == sorted(WRONG)


def test_a_path_is_no_store_and_the_message_says_what_is(tmp_path):
    (found,) = problems(Kit, merchant(), store=Path(tmp_path) / "shop.db")
    assert "SqliteStore(path)" in found
    assert "sqlite:////" in found


def test_names_of_plugins_are_read_once_with_the_merchants_other_settings():
    made = Merchant.from_env(environ=settings(PLUGINS="a, b,,c "))
    assert list(made.plugins) == ["a", "b", "c"]


@pytest.mark.parametrize("reference", ["secretsmanager:shop/prod/apiv3key", "ssm:/shop/apiv3_key"])
def test_a_reference_that_nobody_followed_is_named_and_not_taken_for_a_key(reference):
    (found,) = problems(Kit.from_env, environ=settings(APIV3_KEY=reference))
    assert found.startswith(f"{PREFIX}APIV3_KEY is a reference to a secret")
