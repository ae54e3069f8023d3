"""Uploads: the meta part is signed, and names the file's hash."""

from __future__ import annotations

import hashlib
import json

import pytest

IMAGE = "/v3/merchant/media/upload"
VIDEO = "/v3/merchant/media/video_upload"
# bytes that a parser working on lines or text would harm
FILE = b"\x89PNG\r\n\x1a\n\r\n--not the boundary\n\r\x00\xff\r\n"


def multipart(*parts, boundary="b0undary"):
    body = b"".join(
        f"--{boundary}\r\nContent-Disposition: form-data; {disposition}\r\n".encode()
        + f"Content-Type: {kind}\r\n\r\n".encode()
        + content
        + b"\r\n"
        for disposition, kind, content in parts
    )
    return body + f"--{boundary}--\r\n".encode()


def upload(client, path=IMAGE, *, file=FILE, name="a.png", sha256=None, quote='"', sign=None):
    meta = json.dumps(
        {"filename": name, "sha256": sha256 or hashlib.sha256(file).hexdigest()}, indent=1
    ).encode()
    body = multipart(
        (f"name={quote}meta{quote}", "application/json", meta),
        (f'name={quote}file{quote}; filename="{name}"', "image/png", file),
    )
    return client.send(
        "POST",
        path,
        body,
        signed_body=sign or meta,
        headers={"Content-Type": f"multipart/form-data; boundary={quote}b0undary{quote}"},
    )


@pytest.mark.parametrize("quote", ['"', ""])
def test_image_upload(shared_client, quote):
    answer = upload(shared_client, quote=quote)
    assert answer.status == 200, answer.body
    assert list(answer.json) == ["media_id"]
    shared_client.verified(answer)


def test_video_upload(shared_client):
    assert upload(shared_client, VIDEO, name="a.mp4").status == 200


def test_what_is_signed_is_the_meta_as_it_came(shared_client):
    answer = upload(shared_client, sign=b"{}")
    assert (answer.status, answer.json["code"]) == (401, "SIGN_ERROR")


def test_hash_that_is_not_the_files(shared_client):
    answer = upload(shared_client, sha256="0" * 64)
    assert (answer.status, answer.json["code"]) == (400, "PARAM_ERROR")
    assert answer.json["detail"]["field"] == "/meta/sha256"


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (IMAGE, {"name": "a.mp4"}),
        (VIDEO, {"name": "a.png"}),
        (IMAGE, {"name": "png"}),
        (IMAGE, {"file": b"x" * (2 * 1024 * 1024 + 1)}),
        (VIDEO, {"file": b"x" * (5 * 1024 * 1024 + 1), "name": "a.mp4"}),
        (IMAGE, {"sha256": "not hex"}),
    ],
)
def test_file_that_is_not_taken(shared_client, path, change):
    answer = upload(shared_client, path, **change)
    assert (answer.status, answer.json["code"]) == (400, "PARAM_ERROR")


def test_upload_without_a_file(shared_client):
    meta = json.dumps({"filename": "a.png", "sha256": "0" * 64}).encode()
    answer = shared_client.send(
        "POST",
        IMAGE,
        multipart(('name="meta"', "application/json", meta)),
        signed_body=meta,
        headers={"Content-Type": "multipart/form-data; boundary=b0undary"},
    )
    assert answer.json["detail"]["field"] == "/file"


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data", ""])
def test_upload_that_is_no_multipart(shared_client, content_type):
    answer = shared_client.send(
        "POST", IMAGE, b"{}", signed_body=b"", headers={"Content-Type": content_type}
    )
    assert (answer.status, answer.json["code"]) == (400, "PARAM_ERROR")
