"""A day's trade bill: apply for it, fetch it, prove its hash, and only then hand it on.

Knows days, files and hashes; knows nothing of signatures or rows' meaning. Rules: APIv3 bills (a
Beijing day, ready at 10:00 of the next; a URL that lives seconds; an answer that is not signed,
so that the announced SHA-1 of the uncompressed content is the only proof).
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import weakref
import zlib
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import urlsplit

from .bills import BEIJING, parse_trade_bill
from .errors import (
    BillHashMismatchError,
    InvalidRequestError,
    MessageError,
    ParameterError,
    StatementNotReadyError,
)
from .merchant import OFFICIAL_HOSTS
from .models import BillReply, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .bills import BillRows
    from .transport import Transport

__all__ = ["TradeBill", "bill_day"]

BILL_TYPES = ("ALL", "SUCCESS", "REFUND")
READY = time(10)  # Beijing time of the next day
RETRY = timedelta(minutes=30)  # where the gateway says that it is still making the bill


class TradeBill:
    """The trade bill of one day; nothing is fetched before :meth:`download` or :meth:`rows`.

    Each applies for a fresh URL. Both raise :class:`StatementNotReadyError` (``ready_at`` says
    when to come back), :class:`NoStatementError` for a day without trade,
    :class:`BillHashMismatchError` where the content is not the one announced, and what a read of
    the gateway raises.
    """

    def __init__(
        self,
        day: date,
        *,
        bill_type: str,
        compressed: bool,
        transport: Transport,
        now: Callable[[], datetime],
    ) -> None:
        if bill_type not in BILL_TYPES:
            raise ParameterError("bill_type", f"must be one of {', '.join(BILL_TYPES)}", bill_type)
        self.day = bill_day(day, now())
        self.bill_type = bill_type
        self._compressed = compressed
        self._transport = transport
        self._now = now

    def download(self, path: str | os.PathLike[str]) -> Path:
        """Write the uncompressed bill to ``path``, replacing what is there; return the path.

        The file gets its name when its hash is proven, is on disk when this returns, and is
        readable by its owner only. On any failure nothing is left.
        """
        path = Path(path)
        if path.is_dir():
            raise ParameterError("path", "must name a file, not a folder", str(path))
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                self._fetch(file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
        return path

    def rows(self) -> BillRows:
        """The rows of the bill, whose hash was proven before the first one comes.

        The content waits in a temporary file that is gone when the iteration ends or is dropped.
        """
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the iteration
        try:
            self._fetch(file)
            file.seek(0)
            rows = parse_trade_bill(_closing(file))
        except BaseException:
            file.close()
            raise
        weakref.finalize(rows, file.close)
        return rows

    def __repr__(self) -> str:
        return f"TradeBill({self.day.isoformat()}, {self.bill_type!r})"

    def _fetch(self, file: BinaryIO) -> None:
        for is_last in (False, True):
            reply = self._apply()
            try:
                digest = self._copy(reply.download_url, file)
            except InvalidRequestError:
                if is_last:  # the URL expires within seconds: once is bad luck, twice is not
                    raise
                continue
            if digest != reply.hash_value.lower():
                raise BillHashMismatchError(
                    f"the {self.bill_type} bill of {self.day} has SHA-1 {digest}, announced was "
                    f"{reply.hash_value}; nothing was kept, fetch it again"
                )
            return

    def _apply(self) -> BillReply:
        bill_day(self.day, self._now())
        query = f"bill_date={self.day.isoformat()}&bill_type={self.bill_type}"
        if self._compressed:
            query += "&tar_type=GZIP"
        try:
            answer = self._transport.exchange("GET", f"/v3/bill/tradebill?{query}")
        except StatementNotReadyError as error:
            error.ready_at = self._now() + RETRY
            raise
        reply = decode(answer.body, BillReply)
        if reply.hash_type != "SHA1" or not re.fullmatch("[0-9A-Fa-f]{40}", reply.hash_value):
            raise MessageError(
                f"a bill is announced with a {reply.hash_type[:16]!r} hash; only 40 hex digits of "
                "SHA1 can be checked",
                field="hash_type",
            )
        return reply

    def _copy(self, url: str, file: BinaryIO) -> str:
        host, target = self._address(url)
        digest = hashlib.sha1(usedforsecurity=False)  # the gateway's choice; TLS carries the trust
        with self._transport.download(target, host=host) as chunks:
            for content in _uncompressed(chunks) if self._compressed else chunks:
                digest.update(content)
                file.write(content)
        return digest.hexdigest()

    def _address(self, url: str) -> tuple[str, str]:
        """Scheme and authority, and the target: a signed request goes to the gateway only."""
        try:
            parts = urlsplit(url)
            origin = _origin(url)
        except ValueError:
            raise MessageError("download_url is no URL", field="download_url") from None
        known = {_origin(host) for host in self._transport.hosts}
        known |= {_origin(f"https://{host}") for host in OFFICIAL_HOSTS}
        if "@" in parts.netloc or origin not in known:
            raise MessageError(
                f"download_url is at {origin[0]}://{origin[1]}:{origin[2]}, which is neither the "
                "configured address, nor its backup, nor WeChat Pay's; nothing was sent there",
                field="download_url",
            )
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return f"{parts.scheme}://{parts.netloc}", target


def bill_day(day: date, now: datetime) -> date:
    """``day`` if its bill can exist at ``now``, else :class:`StatementNotReadyError`."""
    if isinstance(day, datetime) or not isinstance(day, date):
        raise ParameterError("day", "must be a datetime.date, the day in Beijing", day)
    ready_at = datetime.combine(day + timedelta(days=1), READY, BEIJING)
    if now < ready_at:
        error = StatementNotReadyError(
            400, "STATEMENT_CREATING", f"the bill of {day} is ready at {ready_at}; nothing was sent"
        )
        error.ready_at = ready_at
        raise error
    return day


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    default = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, parts.port or default


def _uncompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    gzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        for chunk in chunks:
            if gzip.eof:
                raise _damaged("goes on after its end")
            yield gzip.decompress(chunk)
            if gzip.unused_data:
                raise _damaged("goes on after its end")
    except zlib.error as error:
        raise _damaged(f"is broken ({error})") from None
    if not gzip.eof:
        raise _damaged("ends too early")


def _damaged(how: str) -> BillHashMismatchError:
    return BillHashMismatchError(f"the bill's gzip stream {how}; nothing was kept, fetch it again")


def _closing(file: BinaryIO) -> Iterator[bytes]:
    with file:
        yield from file


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened, and a rename is durable alone
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
