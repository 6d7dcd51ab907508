"""`vstore replicator`: the daemon, and what is asked of one that runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vstore.cli.options import json_option
from vstore.cli.output import counted, line, plain, table, text
from vstore.hlc import iso

if TYPE_CHECKING:
    from collections.abc import Callable

    from replication.daemon.config import Config


def _config_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--config",
        "file",
        metavar="FILE",
        type=click.Path(dir_okay=False),
        envvar="VSTORE_REPLICATOR",
        help="What to replicate, in TOML. [$VSTORE_REPLICATOR]",
    )(command)


def _socket_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--socket", metavar="PATH", help="Where the daemon listens; else as its file says.")(command)


@click.group("replicator", invoke_without_command=True)
@_config_option
@click.pass_context
def command(ctx: click.Context, file: str | None) -> None:
    """Keep many replications going, until it is stopped; or ask and tell the daemon that does.

    SIGTERM and SIGINT end it within 10 seconds, after the batches under way; SIGHUP reads the file again. It begins
    with what is there, tries again what does not answer, and goes on from its checkpoints.
    """
    ctx.obj = file
    if ctx.invoked_subcommand is None:
        if file is None:
            raise click.UsageError("name its file: vstore replicator --config replicator.toml.")
        _run(_read(file))


@command.command("check")
@_config_option
@click.pass_context
def check(ctx: click.Context, file: str | None) -> None:
    """Name every mistake in a configuration file, with its line. Opens no database."""
    file = file or ctx.obj
    if file is None:
        raise click.UsageError("name the file: vstore replicator check --config replicator.toml.")
    config = _read(file)
    names = ", ".join(each.name + ("" if each.enabled else " (not enabled)") for each in config.replications)
    text(f"{file}: {counted(len(config.replications), 'replication')}: {names}")


@command.command("status")
@click.argument("name", required=False)
@_socket_option
@_config_option
@json_option
@click.pass_context
def status(ctx: click.Context, name: str | None, socket: str | None, file: str | None, as_json: bool) -> None:
    """Show how the replications stand, or one of them."""
    found = _asked(ctx, socket, file, "status", name)
    if as_json:
        for each in found:
            line(each)
    elif name is not None:
        for each in found:
            _show(each)
    else:
        names = ("replication", "state", "pending", "lag", "rows", "conflicts", "parked", "error")
        table(names, [_cells(each) for each in found])


@command.command("pause")
@click.argument("name", required=False)
@_socket_option
@_config_option
@click.pass_context
def pause(ctx: click.Context, name: str | None, socket: str | None, file: str | None) -> None:
    """Take nothing more, until `resume` or the end of the daemon; all replications, or one."""
    _asked(ctx, socket, file, "pause", name)


@command.command("resume")
@click.argument("name", required=False)
@_socket_option
@_config_option
@click.pass_context
def resume(ctx: click.Context, name: str | None, socket: str | None, file: str | None) -> None:
    """Go on after `pause`; what is failing is tried again at once."""
    _asked(ctx, socket, file, "resume", name)


@command.command("reload")
@_socket_option
@_config_option
@click.pass_context
def reload(ctx: click.Context, socket: str | None, file: str | None) -> None:
    """Let the daemon read its file again, as SIGHUP does. A file with mistakes changes nothing."""
    _asked(ctx, socket, file, "reload", None)


@command.command("stop")
@_socket_option
@_config_option
@click.pass_context
def stop(ctx: click.Context, socket: str | None, file: str | None) -> None:
    """End the daemon, and wait until it has ended."""
    _asked(ctx, socket, file, "stop", None)


# --- inside ----------------------------------------------------------------------------------------------------------


def _read(file: str) -> Config:
    from replication.daemon.config import config_of

    return config_of(file)


def _run(config: Config) -> None:
    from replication.daemon.running import run

    run(config)


def _asked(
    ctx: click.Context, socket: str | None, file: str | None, what: str, name: str | None
) -> list[dict[str, Any]]:
    from replication.daemon.config import default_socket, socket_of
    from replication.daemon.control import asked

    file = file or ctx.obj
    if socket is not None:
        return asked(Path(socket), what, name)
    return asked(socket_of(file) if file is not None else default_socket(), what, name)


def _cells(each: dict[str, Any]) -> tuple[Any, ...]:
    state = each["state"]
    if state == "bootstrapping":
        state = f"{state} {100 * each['progress']:.0f} %"
    pending = "" if each["pending"] is None else each["pending"]
    lag = f"{each['lag_seconds']:,.0f} s" if each["lag_seconds"] else ""
    return each["name"], state, pending, lag, each["rows"], each["conflicts"], each["parked"], _cut(each["error"])


def _cut(words: str) -> str:
    return words if len(words) <= 80 else f"{words[:79]}…"


def _show(each: dict[str, Any]) -> None:
    for name, value in each.items():
        if value is None:
            shown = ""
        elif name in ("since", "error_at", "caught_up_at"):
            shown = iso(value) if value else ""
        else:
            shown = f"{value:,}" if isinstance(value, int | float) else plain(str(value))
        text(f"{name.replace('_', ' '):14} {shown}".rstrip())
