"""The click group whose commands are found by entry point, and imported when used.

Knows entry points and click; knows nothing of any command.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

import click

__all__ = ["wechatpay_kit"]

GROUP = "wechatpay_kit.commands"


class _FoundCommands(click.Group):
    """Loads one command at a time, so that a missing extra of one does not hide the others."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *entry_points(group=GROUP).names})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        for entry in entry_points(group=GROUP, name=cmd_name):
            return _loaded(entry)
        return super().get_command(ctx, cmd_name)


def _loaded(entry: EntryPoint) -> click.Command:
    try:
        command = entry.load()
    except (ImportError, AttributeError) as error:
        return _unavailable(entry.name, str(error))
    if not isinstance(command, click.Command):
        return _unavailable(entry.name, f"{entry.value} is not a click command")
    return command


def _unavailable(name: str, reason: str) -> click.Command:
    """Stands in for a command that cannot be imported, and says why when it is called."""

    def explain() -> None:
        raise click.ClickException(f"{name} is not available: {reason}")

    return click.Command(
        name,
        callback=explain,
        short_help=f"(not available: {reason})",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
        add_help_option=False,
    )


@click.group(cls=_FoundCommands)
@click.version_option(package_name="wechatpay-kit", prog_name="wechatpay-kit")
def wechatpay_kit() -> None:
    """Take WeChat Pay money: tools around the kit."""
