"""The commands that the sandbox adds to ``wechatpay-kit``.

Knows options and what is printed; the sandbox itself is the package's.
"""

from __future__ import annotations

import ipaddress
import signal
import sys
import threading
from pathlib import Path

import click

from .environment import shell_lines
from .server import Sandbox

__all__ = ["demo", "sandbox"]

DEFAULT_PORT = 8920


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--notify-url", help="What WECHATPAY_NOTIFY_URL shall say.")
@click.option(
    "--env-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the environment here, and the keys as PEM files beside it.",
)
def sandbox(port: int, host: str, notify_url: str | None, env_file: Path | None) -> None:
    """Run a WeChat Pay gateway on this machine until Ctrl-C."""
    if not _is_loopback(host):
        click.echo(
            f"Warning: {host} is not loopback. Whoever reaches this port can pay orders and turn "
            "the clock; the control calls under /_sandbox/ ask for no signature.",
            err=True,
        )
    server = Sandbox(notify_url=notify_url, host=host, port=port)
    try:
        server.start()
    except OSError as error:
        server.stop()
        raise click.ClickException(
            f"cannot listen on {host} port {port}: {error.strerror or error}; "
            "choose another with --port"
        ) from None
    try:
        _introduce(server, env_file)
        _wait_for_signal()
    finally:
        server.stop()


@click.command()
@click.option(
    "--adapter",
    type=click.Choice(["flask", "starlette", "lambda"]),
    default="flask",
    show_default=True,
    help="What the shop receives with.",
)
@click.option("--notify-url", help="Deliver here instead of to the demo's shop, to see it fail.")
def demo(adapter: str, notify_url: str | None) -> None:
    """Tell the whole story on this machine: order, payment, notification, refund, bill."""
    from .demo import StoryError, tell  # noqa: PLC0415 - the sandbox command does not pay for it

    try:
        tell(_say, adapter=adapter, notify_url=notify_url)
    except StoryError as error:
        _say(f"\nThis did not happen: {error}", err=True)
        sys.exit(1)
    except ImportError as error:
        raise click.ClickException(str(error)) from None


def _introduce(server: Sandbox, env_file: Path | None) -> None:
    click.echo(f"# WeChat Pay sandbox at {server.base_url} (Ctrl-C stops it and forgets all)\n")
    try:
        settings = server.write_env_file(env_file) if env_file else server.environment()
        click.echo(shell_lines(settings))
    except (OSError, ValueError) as error:
        raise click.ClickException(f"cannot write {env_file}: {error}") from None
    if env_file:
        click.echo(f"# Written to {env_file}; load it with: set -a; . {_sourced(env_file)}; set +a")
    click.echo(
        "# Try it: place an order with your app, then pay it, or let a day pass:\n"
        f"#   curl {server.base_url}/_sandbox/orders\n"
        f"#   curl -X POST {server.base_url}/_sandbox/orders/T10001/pay\n"
        f"#   curl -X POST {server.base_url}/_sandbox/clock -d '{{\"advance\": 86400}}'"
    )


def _wait_for_signal() -> None:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    stopped.wait()


def _sourced(path: Path) -> str:
    # POSIX `.` looks a name without a slash up in PATH.
    return str(path) if "/" in str(path) else f"./{path}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(line: str, *, err: bool = False) -> None:
    """Echo, in ASCII where the output cannot show more."""
    encoding = (sys.stderr if err else sys.stdout).encoding or "ascii"
    try:
        line.encode(encoding)
    except UnicodeEncodeError:
        line = line.replace("¥", "CNY ").replace("…", "...")
        line = line.encode("ascii", "backslashreplace").decode()
    click.echo(line, err=err)
