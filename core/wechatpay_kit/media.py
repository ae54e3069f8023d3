"""The bytes of an upload.

Knows file kinds, sizes and the multipart layout; knows nothing of HTTP or keys. Rule: APIv3 media
uploads, where the ``meta`` part alone is signed and carries the SHA-256 of the file.
"""

from __future__ import annotations

import hashlib
import mimetypes
import re
import secrets

from msgspec import Struct

from .errors import ParameterError
from .models import MediaMeta, encode

__all__ = ["Upload", "image", "video"]

_IMAGES, _IMAGE_BYTES = ("jpg", "bmp", "png"), 2 * 1024 * 1024
_VIDEOS = ("avi", "wmv", "mpeg", "mp4", "mov", "mkv", "flv", "f4v", "m4v", "rmvb")
_VIDEO_BYTES = 5 * 1024 * 1024
_NAME_LENGTH = 128


class Upload(Struct, frozen=True):
    """A multipart body, its content type, and the part of it that is signed."""

    meta: bytes
    body: bytes
    content_type: str


def image(filename: str, content: bytes) -> Upload:
    """A picture to upload; :class:`ParameterError` if it is none or over 2 MiB."""
    return _upload(filename, content, _IMAGES, _IMAGE_BYTES)


def video(filename: str, content: bytes) -> Upload:
    """A film to upload; :class:`ParameterError` if it is none or over 5 MiB."""
    return _upload(filename, content, _VIDEOS, _VIDEO_BYTES)


def _upload(filename: str, content: bytes, kinds: tuple[str, ...], limit: int) -> Upload:
    _check(filename, content, kinds, limit)
    meta = encode(MediaMeta(filename=filename, sha256=hashlib.sha256(content).hexdigest()))
    boundary = f"wechatpay-kit-{secrets.token_hex(16)}"
    kind = mimetypes.guess_type(filename)[0] or "application/octet-stream"
    parts = (
        b"--" + boundary.encode(),
        b'Content-Disposition: form-data; name="meta"',
        b"Content-Type: application/json",
        b"",
        meta,
        b"--" + boundary.encode(),
        f'Content-Disposition: form-data; name="file"; filename="{filename}"'.encode(),
        f"Content-Type: {kind}".encode(),
        b"",
        content,
        b"--" + boundary.encode() + b"--",
        b"",
    )
    return Upload(meta, b"\r\n".join(parts), f"multipart/form-data; boundary={boundary}")


def _check(filename: str, content: bytes, kinds: tuple[str, ...], limit: int) -> None:
    if not 0 < len(filename) <= _NAME_LENGTH or re.search(r'["\\/\x00-\x1f\x7f]', filename):
        raise ParameterError(
            "filename",
            f"must be 1 to {_NAME_LENGTH} characters without quotes or slashes",
            filename,
        )
    if filename.rpartition(".")[2].lower() not in kinds:
        raise ParameterError("filename", f"must end in one of .{', .'.join(kinds)}", filename)
    if not 0 < len(content) <= limit:
        raise ParameterError("content", f"must be 1 to {limit} bytes", len(content))
