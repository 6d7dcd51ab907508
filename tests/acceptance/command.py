"""Runs the `vstore` command as tests need it: in this process, or as one of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from click.testing import CliRunner, Result

from vstore.cli import main


def vstore(*arguments: str, store: str | None = None, stdin: str | bytes | None = None) -> Result:
    """The command in this process, by click's own runner: exit code, stdout, stderr."""
    options = [] if store is None else ["--store", store]
    return CliRunner().invoke(main, [*arguments, *options], input=stdin)


def values(result: Result) -> list[Any]:
    """The JSON lines that a command has printed, if it ended well."""
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def process(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """The command as a process of its own, as `python -m vstore`."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-m", "vstore", *arguments], **{**pipes, **options})


def finished(*arguments: str, stdin: bytes = b"", **options: Any) -> tuple[int, bytes, bytes]:
    """The command as a process of its own, run to its end: exit code, stdout, stderr."""
    with process(*arguments, **options) as running:
        out, err = running.communicate(stdin)
    return running.returncode, out, err
