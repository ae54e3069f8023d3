"""Every setting: what is accepted, and what is said of what is not, all at once."""

from __future__ import annotations

import base64
import re
import traceback
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from deliveries import KEYS, merchant
from wechatpay_kit import ConfigError, Kit, Merchant, RsaSigner
from wechatpay_kit.merchant import OFFICIAL_BACKUP_URL, OFFICIAL_URL
from wechatpay_kit_sandbox.keys import private_pem

KEY = KEYS.merchant.private_key
PKCS8 = private_pem(KEY)
PKCS1 = KEY.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
LOCKED = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"password1"))
REAL_SERIAL = "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"
REAL_KEY = "0123456789abcdef0123456789abcdef"
REAL_ID = "PUB_KEY_ID_0000000000000024101100397200000006"
PREFIX = "WECHATPAY_"


def certificate(serial: int, key=None) -> bytes:
    key = key or KEY
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )


def public_pem(key) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sm2(pem: bytes) -> bytes:
    """The same PEM with the curve of China's SM2 in the place of P-256, as SM merchants hold."""
    kind = re.search(rb"BEGIN ([A-Z ]+)", pem)[1]
    raw = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    p256, curve = bytes.fromhex("06082a8648ce3d030107"), bytes.fromhex("06082a811ccf5501822d")
    assert p256 in raw
    text = base64.encodebytes(raw.replace(p256, curve))
    return b"-----BEGIN %s-----\n%s-----END %s-----\n" % (kind, text, kind)


def real(**changes: object) -> Merchant:
    """A merchant against the real hosts, with credentials that no sandbox made."""
    settings = {
        "mchid": "1900000001",
        "appid": "wxd678efh567hg6787",
        "serial_no": REAL_SERIAL,
        "private_key": PKCS8,
        "apiv3_key": REAL_KEY,
        "public_key_id": REAL_ID,
        "public_key": KEYS.public_key.pem,
    }
    return Merchant(**settings | changes)


def receiver(**changes: object) -> Merchant:
    """The same without a private key, for rules that are not about it: loading one takes time."""
    return real(**{"receive_only": True, "private_key": None} | changes)


def environment(**changes: str | None) -> dict[str, str]:
    settings = {
        "MCHID": "1900000001",
        "APPID": "wxd678efh567hg6787",
        "SERIAL_NO": REAL_SERIAL,
        "PRIVATE_KEY": PKCS8.decode(),
        "APIV3_KEY": REAL_KEY,
        "PUBLIC_KEY_ID": REAL_ID,
        "PUBLIC_KEY": KEYS.public_key.pem.decode(),
    } | changes
    return {f"{PREFIX}{name}": value for name, value in settings.items() if value is not None}


def problems(make, *arguments, **settings) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        make(*arguments, **settings)
    assert str(caught.value) == "\n".join(caught.value.problems)
    return caught.value.problems


def only_problem(make, *arguments, **settings) -> str:
    found = problems(make, *arguments, **settings)
    assert len(found) == 1, found
    return found[0]


# All at once


def test_all_that_is_missing_is_reported_at_once_with_a_right_example_each():
    found = problems(Merchant.from_env, environ={}, needs_store=True)
    expected = {
        "STORE": "sqlite:////var/lib/shop/wechatpay.db",
        "MCHID": "1900000001",
        "APPID": "wxd678efh567hg6787",
        "PRIVATE_KEY": "-----BEGIN PRIVATE KEY-----",
        "SERIAL_NO": REAL_SERIAL,
        "APIV3_KEY": "32 characters",
    }
    assert len(found) == len(expected)
    for name, example in expected.items():
        (said,) = [text for text in found if text.startswith(f"{PREFIX}{name} ")]
        assert "is missing" in said
        assert example in said


WRONG = {
    "MCHID": ("19000x", "1900000001"),
    "APPID": ("wx 1", "wxd678efh567hg6787"),
    "SERIAL_NO": ("5157", REAL_SERIAL),
    "PRIVATE_KEY": ("no PEM", "-----BEGIN PRIVATE KEY-----"),
    "APIV3_KEY": ("short", "0123456789abcdef0123456789abcdef"),
    "APIV3_KEY_PREVIOUS": ("0" * 33, "0123456789abcdef0123456789abcdef"),
    "PUBLIC_KEY_ID": ("5157F09EFDC0", "PUB_KEY_ID_0000000000000024101100397200000006"),
    "PUBLIC_KEY": ("no PEM", "-----BEGIN PUBLIC KEY-----"),
    "PLATFORM_CERT": ("no PEM", "-----BEGIN CERTIFICATE-----"),
    "NOTIFY_URL": ("https://shop.example/notify?order=1", "https://shop.example/wechatpay/notify"),
    "BASE_URL": ("ftp://pay.example", "https://api.mch.weixin.qq.com"),
    "BACKUP_URL": ("http://pay.example", "https://api.mch.weixin.qq.com"),
    "SANDBOX_CLOCK": ("http://pay.example/clock", "https://"),
}


def test_all_that_is_malformed_is_reported_at_once_with_a_right_example_each():
    wrong = {name: value for name, (value, _) in WRONG.items()}
    found = problems(Merchant.from_env, environ=environment(**wrong))
    assert len(found) == len(WRONG), found
    for name, (_, example) in WRONG.items():
        (said,) = [text for text in found if text.startswith(f"{PREFIX}{name} ")]
        assert "must " in said, said
        assert example in said, said


@pytest.mark.parametrize("name", WRONG)
def test_each_malformed_variable_is_named_alone(name):
    changes = {"BASE_URL": "http://127.0.0.1:9"} | {name: WRONG[name][0]}
    said = only_problem(Merchant.from_env, environ=environment(**changes))
    assert said.startswith(f"{PREFIX}{name} ")


def test_by_arguments_the_names_are_the_arguments():
    found = problems(Merchant)
    assert [text.split()[0] for text in found] == [
        "mchid",
        "appid",
        "private_key",
        "serial_no",
        "apiv3_key",
    ]


def test_a_second_merchant_has_a_prefix_of_its_own():
    first, second = environment(), environment(MCHID="1900000002")
    both = first | {name.replace(PREFIX, "SHOP2_"): value for name, value in second.items()}
    assert Merchant.from_env("SHOP2_", both).mchid == "1900000002"
    assert Merchant.from_env(environ=both).mchid == "1900000001"
    said = only_problem(Merchant.from_env, "SHOP2_", {**both, "SHOP2_APPID": ""})
    assert said.startswith("SHOP2_APPID ")


def test_the_environment_of_the_process_is_the_default(monkeypatch):
    for name, value in environment(MCHID="1900000003").items():
        monkeypatch.setenv(name, value)
    assert Merchant.from_env().mchid == "1900000003"


def test_a_complete_environment_gives_what_was_set():
    shop = Merchant.from_env(
        environ=environment(
            NOTIFY_URL="https://shop.example/wechatpay/notify",
            PLUGINS="fulfilment, shop.plugins:Mail ,",
            STORE="sqlite:////var/lib/shop/wechatpay.db",
        ),
        needs_store=True,
    )
    assert shop.notify_url == "https://shop.example/wechatpay/notify"
    assert shop.plugins == ("fulfilment", "shop.plugins:Mail")
    assert shop.store == "sqlite:////var/lib/shop/wechatpay.db"
    assert (shop.base_url, shop.backup_url) == (OFFICIAL_URL, OFFICIAL_BACKUP_URL)
    assert shop.keys.serials == (REAL_ID,)
    assert shop.signer.serial_no == REAL_SERIAL
    assert shop.is_official


def test_with_a_base_url_there_is_no_backup_unless_it_is_set_too():
    assert merchant().backup_url is None
    assert merchant(backup_url="http://127.0.0.1:10").backup_url == "http://127.0.0.1:10"


# Private keys


@pytest.mark.parametrize("pem", [PKCS8, PKCS1, PKCS8.decode()], ids=["PKCS8", "PKCS1", "text"])
def test_a_private_key_is_pkcs8_or_pkcs1(pem):
    assert isinstance(real(private_key=pem).signer, RsaSigner)
    assert real(private_key=pem).private_key.private_numbers() == KEY.private_numbers()


@pytest.mark.parametrize("password", ["password1", b"password1"])
def test_an_encrypted_private_key_opens_with_its_password(password):
    shop = real(private_key=LOCKED, private_key_password=password)
    assert shop.private_key.private_numbers() == KEY.private_numbers()


@pytest.mark.parametrize(
    ("pem", "password", "says"),
    [
        (LOCKED, None, "unencrypted, or with private_key_password"),
        (LOCKED, "password2", "private_key_password must open it"),
        (PKCS8, "password1", "private_key_password must open it"),
        (PKCS8[:300], None, "PKCS#8 or PKCS#1"),
        (b"", None, "PKCS#8 or PKCS#1"),
        ("", None, "PKCS#8 or PKCS#1"),
        (b"\xff\x00", None, "PKCS#8 or PKCS#1"),
        (KEYS.public_key.pem, None, "PKCS#8 or PKCS#1"),
        (KEYS.certificate.pem, None, "PKCS#8 or PKCS#1"),
        (private_pem(ec.generate_private_key(ec.SECP256R1())), None, "RSA key of at least 2048"),
        (private_pem(rsa.generate_private_key(65537, 1024)), None, "RSA key of at least 2048 bits"),
        (sm2(private_pem(ec.generate_private_key(ec.SECP256R1()))), None, "RSA"),
    ],
    ids=[
        "encrypted, no password",
        "encrypted, wrong password",
        "password for an open key",
        "cut",
        "no bytes",
        "no text",
        "bytes",
        "a public key",
        "a certificate",
        "EC",
        "1024 bits",
        "SM2",
    ],
)
def test_a_private_key_that_cannot_sign_is_named_with_its_rule(pem, password, says):
    said = only_problem(real, private_key=pem, private_key_password=password)
    assert said.startswith("private_key ")
    assert says in said


def test_line_ends_of_a_pem_may_be_written_as_backslash_n_in_the_environment():
    def one_line(pem: bytes) -> str:
        return pem.decode().replace("\n", "\\n")

    shop = Merchant.from_env(
        environ=environment(
            PRIVATE_KEY=one_line(PKCS8),
            PUBLIC_KEY=one_line(KEYS.public_key.pem),
            PLATFORM_CERT=one_line(certificate(7)),
        )
    )
    assert shop.private_key.private_numbers() == KEY.private_numbers()
    assert shop.keys.serials == (REAL_ID, f"{7:040X}")


def test_pem_is_read_from_the_file_that_path_names(tmp_path):
    files = {
        "PRIVATE_KEY": PKCS8,
        "PUBLIC_KEY": KEYS.public_key.pem,
        "PLATFORM_CERT": certificate(7),
    }
    paths = {}
    for name, pem in files.items():
        (tmp_path / name).write_bytes(pem)
        paths[f"{name}_PATH"] = str(tmp_path / name)
    shop = Merchant.from_env(environ=environment(PRIVATE_KEY=None, PUBLIC_KEY=None, **paths))
    assert shop.private_key.private_numbers() == KEY.private_numbers()
    assert shop.keys.serials == (REAL_ID, f"{7:040X}")


@pytest.mark.parametrize("name", ["PRIVATE_KEY", "PUBLIC_KEY", "PLATFORM_CERT"])
def test_text_and_path_at_once_are_refused(name, tmp_path):
    file = tmp_path / "pem"
    pem = {"PRIVATE_KEY": PKCS8, "PUBLIC_KEY": KEYS.public_key.pem}.get(name, certificate(7))
    file.write_bytes(pem)
    environ = environment(**{name: pem.decode(), f"{name}_PATH": str(file)})
    said = only_problem(Merchant.from_env, environ=environ)
    assert said.startswith(f"{PREFIX}{name} and {PREFIX}{name}_PATH are both set; keep one")


@pytest.mark.parametrize("name", ["PRIVATE_KEY", "PUBLIC_KEY", "PLATFORM_CERT"])
@pytest.mark.parametrize("what", ["nowhere", "a folder"])
def test_a_path_that_cannot_be_read_is_named_with_its_reason(name, what, tmp_path):
    path = tmp_path / "none.pem" if what == "nowhere" else tmp_path
    environ = environment(**{name: None, f"{name}_PATH": str(path)})
    found = problems(Merchant.from_env, environ=environ)
    assert found[0].startswith(f"{PREFIX}{name}_PATH ")
    assert str(path) in found[0]
    assert "cannot be read: " in found[0]


@pytest.mark.parametrize("blank", ["", " ", "\n"])
@pytest.mark.parametrize(
    "name",
    ["PRIVATE_KEY", "PRIVATE_KEY_PASSWORD", "APIV3_KEY", "APIV3_KEY_PREVIOUS", "PUBLIC_KEY"],
)
def test_an_empty_secret_refuses_to_start(name, blank):
    said = only_problem(Merchant.from_env, environ=environment(**{name: blank}))
    assert said.startswith(f"{PREFIX}{name} ")
    assert "empty" in said


@pytest.mark.parametrize("field", ["private_key", "apiv3_key", "apiv3_key_previous", "public_key"])
@pytest.mark.parametrize("empty", ["", b""], ids=["text", "bytes"])
def test_an_empty_secret_is_refused_as_an_argument_too(field, empty):
    assert only_problem(real, **{field: empty}).startswith(f"{field} ")


# APIv3 keys


@pytest.mark.parametrize("field", ["apiv3_key", "apiv3_key_previous"])
@pytest.mark.parametrize(
    ("value", "size"), [("0" * 31, 31), ("0" * 33, 33), ("0" * 16, 16), ("茶" * 32, 96)]
)
def test_an_apiv3_key_is_exactly_32_bytes(field, value, size):
    said = only_problem(receiver, **{field: value})
    assert said.startswith(f"{field} must be exactly 32 bytes")
    assert said.endswith(f"it has {size}")
    assert value not in said


def test_an_apiv3_key_may_be_bytes():
    assert repr(receiver(apiv3_key=REAL_KEY.encode()).decryptor) == "Decryptor(1 key(s))"
    assert repr(receiver(apiv3_key_previous="f" * 32).decryptor) == "Decryptor(2 key(s))"


@pytest.mark.parametrize("name", ["APIV3_KEY", "APIV3_KEY_PREVIOUS", "PRIVATE_KEY", "PUBLIC_KEY"])
def test_bytes_of_the_environment_that_are_no_utf8_are_a_config_error(name):
    wrong = b"\xff\xfe".decode("utf-8", "surrogateescape") * 16  # as os.environ decodes them
    said = only_problem(Merchant.from_env, environ=environment(**{name: wrong}))
    assert said.startswith(f"{PREFIX}{name} ")


# WeChat Pay's keys


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"public_key_id": None}, "public_key_id"),
        ({"public_key": None}, "public_key"),
    ],
    ids=["no id", "no key"],
)
def test_a_public_key_needs_its_id_and_the_id_its_key(given, named):
    said = only_problem(real, **given)
    assert said.startswith(f"{named} is missing")
    assert "both the id (PUB_KEY_ID_…) and the PEM" in said


@pytest.mark.parametrize(
    "pem",
    [
        b"no PEM",
        PKCS8,
        KEYS.certificate.pem,
        public_pem(ec.generate_private_key(ec.SECP256R1())),
        sm2(public_pem(ec.generate_private_key(ec.SECP256R1()))),
    ],
    ids=["no PEM", "a private key", "a certificate", "EC", "SM2"],
)
def test_a_public_key_that_cannot_verify_is_named(pem):
    said = only_problem(receiver, public_key=pem)
    assert said.startswith("public_key must be PEM of an RSA public key")


@pytest.mark.parametrize(
    "pem",
    [
        b"no PEM",
        PKCS8,
        KEYS.public_key.pem,
        certificate(5, ec.generate_private_key(ec.SECP256R1())),
        sm2(certificate(5, ec.generate_private_key(ec.SECP256R1()))),
    ],
    ids=["no PEM", "a private key", "a public key", "EC", "SM2"],
)
def test_a_platform_certificate_that_cannot_verify_is_named(pem):
    said = only_problem(receiver, platform_cert=pem)
    assert said.startswith("platform_cert must be PEM of one or more certificates")


def test_certificates_and_public_key_are_held_at_once():
    shop = receiver(platform_cert=certificate(7) + certificate(8))
    assert shop.keys.serials == (REAL_ID, f"{7:040X}", f"{8:040X}")
    assert shop.uses_certificates


def test_with_the_public_key_alone_no_certificates_are_used():
    assert not receiver().uses_certificates
    assert real(public_key=None, public_key_id=None).uses_certificates


# Addresses


@pytest.mark.parametrize("field", ["base_url", "backup_url", "sandbox_clock"])
@pytest.mark.parametrize(
    "url",
    [
        "http://pay.example",
        "http://127.0.0.1.pay.example",
        "http://localhost.pay.example",
        "http://127.0.0.1@pay.example",
        "http://[::2]",
        "http://0.0.0.0",
        "ftp://127.0.0.1",
        "//127.0.0.1",
        "127.0.0.1:8000",
        "https://",
        "https:///path",
        "https://user:hunter2@pay.example",
        "https://user@pay.example",
        "https://pay.example/?a=1",
        "https://[::1",
        "https://pay.example:port",
    ],
)
def test_an_address_is_https_without_user_or_query_or_http_to_loopback(field, url):
    changes = {"base_url": "http://127.0.0.1:9"} | {field: url}
    said = only_problem(receiver, **changes)
    assert said.startswith(f"{field} must be an https:// address")
    assert "hunter2" not in said


def test_an_address_that_cannot_be_read_is_reported_where_a_store_is_needed_too():
    environ = environment(BASE_URL="https://[::1")
    said = only_problem(Merchant.from_env, environ=environ, needs_store=True)
    assert said.startswith(f"{PREFIX}BASE_URL must be an https:// address")


@pytest.mark.parametrize(
    "url",
    [
        "https://pay.example",
        "https://pay.example:8443/gateway",
        "http://127.0.0.1:8000",
        "http://127.1.2.3",
        "http://localhost:8000",
        "http://[::1]:8000",
        "HTTPS://pay.example",
    ],
)
def test_an_address_may_be(url):
    assert merchant(base_url=url).base_url == url
    assert merchant(base_url=f"{url}/").base_url == url


@pytest.mark.parametrize(
    "url",
    [
        "https://shop.example/notify?x=1",
        "https://shop.example/notify#x",
        "shop.example/notify",
        "https://shop.example/no tify",
        "https://shop.example/" + "n" * 235,
        "http://shop.example/notify",
    ],
    ids=[
        "a query",
        "a fragment",
        "no scheme",
        "a blank",
        "256 characters",
        "http to a public host",
    ],
)
def test_a_notify_url_that_wechat_pay_would_refuse_is_named(url):
    said = only_problem(receiver, notify_url=url)
    assert said.startswith("notify_url must ")
    assert "https://shop.example/wechatpay/notify" in said or "1 to 255 characters" in said


def test_a_notify_url_may_have_255_characters_or_be_on_loopback():
    longest = "https://shop.example/".ljust(255, "n")
    assert receiver(notify_url=longest).notify_url == longest
    assert merchant(notify_url="http://127.0.0.1:5000/n").notify_url == "http://127.0.0.1:5000/n"


# A sandbox's credentials are refused by the real gateway's addresses

MARKS = {
    "apiv3_key": {"apiv3_key": "SANDBOX" + "x" * 25},
    "apiv3_key_previous": {"apiv3_key_previous": "SANDBOX" + "x" * 25},
    "serial_no": {"serial_no": "53414e44424f58".ljust(40, "0")},
    "public_key_id": {"public_key_id": "PUB_KEY_ID_83657868667988".ljust(45, "0")},
    "platform_cert": {"platform_cert": certificate(int("53414E44424F58".ljust(40, "0"), 16))},
    "sandbox_clock": {"sandbox_clock": "http://127.0.0.1:9/_sandbox/clock"},
}
HOSTS = (
    None,
    "https://api.mch.weixin.qq.com",
    "https://API.mch.weixin.qq.com/",
    "https://api.mch.weixin.qq.com:443",
    "https://api2.mch.weixin.qq.com",
    "https://api.wechatpay.cn",
    "https://api2.wechatpay.cn",
    "https://api.mch.weixin.qq.com.",  # the same host, spelt as a root name
)


@pytest.mark.parametrize("field", MARKS)
@pytest.mark.parametrize("host", HOSTS)
def test_a_sandboxs_credential_is_refused_against_a_real_host(field, host):
    said = only_problem(receiver, base_url=host, **MARKS[field])
    assert said.startswith(f"{field} belongs to a sandbox")
    assert "SANDBOXx" not in said


@pytest.mark.parametrize("field", MARKS)
def test_a_sandboxs_credential_is_refused_against_a_real_backup_host(field):
    with pytest.raises(ConfigError, match="sandbox"):
        receiver(base_url="http://127.0.0.1:9", backup_url=OFFICIAL_BACKUP_URL, **MARKS[field])


@pytest.mark.parametrize("field", MARKS)
def test_a_sandboxs_credential_is_accepted_by_a_sandbox(field):
    assert not receiver(base_url="http://127.0.0.1:9", **MARKS[field]).is_official


def test_a_signer_with_a_sandboxs_serial_is_refused_against_the_real_host():
    signer = RsaSigner(KEY, "53414E44424F58".ljust(40, "0"))
    with pytest.raises(ConfigError, match="sandbox"):
        real(private_key=None, serial_no=None, signer=signer)


def test_every_mark_is_reported_at_once():
    changes = {name: value for mark in MARKS.values() for name, value in mark.items()}
    found = problems(receiver, **changes)
    assert {text.split()[0] for text in found} == set(MARKS)


# receive_only


def test_receive_only_needs_neither_private_key_nor_serial_nor_appid():
    shop = Merchant.from_env(
        environ=environment(PRIVATE_KEY=None, SERIAL_NO=None, APPID=None), receive_only=True
    )
    with pytest.raises(ConfigError, match="receive_only=True"):
        _ = shop.signer
    with pytest.raises(ConfigError, match="private_key"):
        _ = shop.private_key


def test_receive_only_does_not_even_read_the_private_key(tmp_path):
    environ = environment(PRIVATE_KEY=None, PRIVATE_KEY_PATH=str(tmp_path / "none"))
    assert Merchant.from_env(environ=environ, receive_only=True).receive_only


def test_receive_only_needs_a_key_to_verify_by():
    said = only_problem(
        Merchant.from_env,
        environ=environment(PUBLIC_KEY=None, PUBLIC_KEY_ID=None),
        receive_only=True,
    )
    assert said.startswith(f"{PREFIX}PUBLIC_KEY is missing")
    assert "platform certificate" in said


def test_a_call_that_must_sign_says_so_where_only_receiving_is_set_up(store):
    kit = Kit(merchant(receive_only=True, private_key=None), store=store)
    with pytest.raises(ConfigError, match="receive_only=True"):
        kit.create_order(
            out_trade_no="T10012", total=1, description="tea", openid="oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
        )
    kit.close()


# The store


def test_there_is_no_default_store_against_the_real_gateway():
    said = only_problem(Merchant.from_env, environ=environment(), needs_store=True)
    assert said.startswith(f"{PREFIX}STORE is missing; for example sqlite:////")
    with pytest.raises(ConfigError, match="no store"):
        Kit(real())


def test_a_sqlite_path_must_be_absolute_against_the_real_gateway():
    with pytest.raises(ConfigError, match="must be an absolute path, with four slashes"):
        Kit(real(store="sqlite:///wechatpay.db"))


# No secret in what is said


def test_no_problem_and_no_traceback_shows_a_secret():
    secrets = {
        "apiv3_key": "hunter2-" * 5,
        "apiv3_key_previous": "hunter3-" * 5,
        "private_key": PKCS8.replace(b"\n", b"\n\n")[:-60],
        "private_key_password": "hunter4",
        "public_key": "-----BEGIN PUBLIC KEY-----\nhunter5\n-----END PUBLIC KEY-----",
        "platform_cert": "-----BEGIN CERTIFICATE-----\nhunter6\n-----END CERTIFICATE-----",
        "base_url": "https://shop:hunter7@api.mch.weixin.qq.com",
        "sandbox_clock": "http://shop:hunter8@127.0.0.1/",
    }
    with pytest.raises(ConfigError) as caught:
        real(**secrets)
    said = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    for number in range(2, 9):
        assert f"hunter{number}" not in said
    for line in PKCS8.decode().splitlines()[1:-1]:
        assert line not in said
