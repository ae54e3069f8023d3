"""Keys, and the environment that points a shop at a sandbox."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sandbox.gateway_client import GatewayClient
from wechatpay_kit_sandbox import Sandbox

MARK_HEX = "53414E44424F58"


def test_credentials_carry_the_sandbox_mark(shared_sandbox, shared_client):
    env = shared_sandbox.environment()
    assert env["WECHATPAY_SERIAL_NO"].startswith(MARK_HEX)
    assert len(env["WECHATPAY_SERIAL_NO"]) == 40
    assert shared_client.certificate_serial.startswith(MARK_HEX)
    assert len(shared_client.certificate_serial) == 40
    assert env["WECHATPAY_APIV3_KEY"].startswith("SANDBOX")
    assert len(env["WECHATPAY_APIV3_KEY"].encode()) == 32
    assert env["WECHATPAY_PUBLIC_KEY_ID"].startswith("PUB_KEY_ID_83657868667988")
    assert env["WECHATPAY_MCHID"].startswith("19")
    assert len(env["WECHATPAY_MCHID"]) == 10
    assert env["WECHATPAY_APPID"].startswith("wx")
    assert len(env["WECHATPAY_APPID"]) == 18


def test_environment_names_the_gateway_and_its_clock(shared_sandbox):
    env = shared_sandbox.environment()
    assert env["WECHATPAY_BASE_URL"] == shared_sandbox.base_url
    assert env["WECHATPAY_SANDBOX_CLOCK"] == f"{shared_sandbox.base_url}/_sandbox/clock"
    assert "WECHATPAY_NOTIFY_URL" not in env


def test_no_secret_shows_in_a_repr(keys):
    shown = repr(keys)
    assert keys.merchant.apiv3_key.decode() not in shown
    assert "PRIVATE" not in shown


def test_certificates_lists_the_platform_certificate(shared_sandbox, shared_client):
    (entry,) = shared_client.get("/v3/certificates?algorithm_type=RSA").json["data"]
    assert entry["serial_no"] == shared_client.certificate_serial
    assert entry["encrypt_certificate"]["algorithm"] == "AEAD_AES_256_GCM"
    assert entry["encrypt_certificate"]["associated_data"] == "certificate"
    pem = shared_client.decrypt(entry["encrypt_certificate"])
    assert pem.decode() == shared_sandbox.environment()["WECHATPAY_PLATFORM_CERT"]
    assert datetime.fromisoformat(entry["effective_time"]) < datetime.now(UTC)
    expiry = x509.load_pem_x509_certificate(pem).not_valid_after_utc
    assert datetime.fromisoformat(entry["expire_time"]) == expiry


def by_shell(path):
    script = '. "$1"; exec python3 -c "import json, os; print(json.dumps(dict(os.environ)))"'
    out = subprocess.run(
        ["sh", "-c", f"set -a; {script}", "sh", str(path)],
        env={"PATH": os.environ["PATH"]},
        cwd="/",
        check=True,
        capture_output=True,
    )
    return {k: v for k, v in json.loads(out.stdout).items() if k.startswith("WECHATPAY_")}


@pytest.fixture
def listening(keys):
    with Sandbox(keys=keys, notify_url="http://127.0.0.1:5000/wechatpay/notify") as sandbox:
        yield sandbox


def test_env_file_says_in_a_shell_what_it_said_when_written(listening, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    written = listening.write_env_file("my sandbox.env")
    assert by_shell(tmp_path / "my sandbox.env") == written
    assert written["WECHATPAY_NOTIFY_URL"] == "http://127.0.0.1:5000/wechatpay/notify"


def test_env_file_holds_one_quoted_line_a_variable(listening, tmp_path):
    """The form that python-dotenv takes as a shell does: nothing in the quotes to expand."""
    written = listening.write_env_file(tmp_path / ".env")
    lines = (tmp_path / ".env").read_text().splitlines()
    assert lines == [f"{name}='{value}'" for name, value in written.items()]
    assert not any("'" in value or "\\" in value for value in written.values())


def test_files_are_for_the_owner_alone(listening, tmp_path):
    path = tmp_path / ".env"
    path.touch(mode=0o644)
    written = listening.write_env_file(path)
    files = [path, *(value for name, value in written.items() if name.endswith("_PATH"))]
    assert len(files) == 4
    assert {stat.S_IMODE(Path(file).stat().st_mode) for file in files} == {0o600}


def test_written_keys_are_those_of_the_sandbox(listening, tmp_path):
    written = listening.write_env_file(tmp_path / ".env")
    env = listening.environment()
    for name in ("PRIVATE_KEY", "PLATFORM_CERT", "PUBLIC_KEY"):
        file = Path(written[f"WECHATPAY_{name}_PATH"])
        assert file.read_text() == env[f"WECHATPAY_{name}"]
    load_pem_private_key(env["WECHATPAY_PRIVATE_KEY"].encode(), None)


def test_path_that_shells_and_dotenv_read_differently_is_refused(listening, tmp_path):
    with pytest.raises(ValueError, match="WECHATPAY_PRIVATE_KEY_PATH"):
        listening.write_env_file(tmp_path / "it's.env")
    assert list(tmp_path.iterdir()) == []


def test_sandbox_has_no_address_before_it_listens(keys):
    with pytest.raises(RuntimeError, match="no address yet"):
        _ = Sandbox(keys=keys).base_url


def test_sandbox_can_be_started_again_on_its_port(keys):
    sandbox = Sandbox(keys=keys)
    with sandbox:
        first = sandbox.base_url
        client = GatewayClient(sandbox.environment())
        client.place("T000001")
    with sandbox:
        assert sandbox.base_url == first
        assert client.query("T000001").status == 200


def test_port_in_use_is_an_oserror(shared_sandbox, keys):
    port = int(shared_sandbox.base_url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        Sandbox(keys=keys, port=port).start()
