"""The documentation is true: its code runs, its output is what is shown, its links lead somewhere, nothing is left out.

    ```python          run, all blocks of a page in one namespace and one folder
    ```python server   the same, with the servers' URLs put in; needs the servers
    ```output          what the block before printed
    ```console         "$ " before each command; the rest is what it printed
    ```sh              run, its output not compared
    anything in SHOWN  not code of ours

`…` in expected output stands for anything.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest

import mapreduce
import replication
import vstore
import vstore.resolvers
from vstore.cli import main
from vstore.sql.schema import tables

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"]
SHOWN = {"text", "abnf", "json", "toml", "makefile"}
INSTALL = [
    "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/vstore demo",
    ".venv/bin/pip install -e '.[test]' && .venv/bin/python -m pytest",
]
SERVERS = {"postgresql://app@db1.example/app": "postgresql", "mariadb://app@db2.example/app": "mariadb"}
"""The servers of the documentation, and the kind that stands in for each."""
ANYTHING = "anything"
"""What a block that could not run has printed."""


class Block(NamedTuple):
    """A fenced block of a page: what is behind the fence, its text, and the line where the text begins."""

    kind: str
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(.*?)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield Block(found[1].strip(), found[2], text.count("\n", 0, found.start(2)) + 1)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


# --- code ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_of_a_page_runs_and_prints_what_is_shown(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_url: Callable[[str], str]
) -> None:
    """From the top of the page to its end, as a reader would who copies each block."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    names: dict[str, Any] = {"__name__": "__main__"}
    urls: dict[str, str] = {}
    printed: str | None = None
    no_server: BaseException | None = None

    for block in blocks(page):
        place = f"{named(page)}:{block.line}"
        before, printed = printed, None
        match block.kind:
            case "python":
                printed = _run_python(block.text, place, block.line, names)
            case "python server":
                try:
                    for url in SERVERS.keys() - urls.keys():
                        urls[url] = fresh_url(SERVERS[url])
                except pytest.skip.Exception as error:
                    no_server, printed = error, ANYTHING  # the rest of the page does not need it
                    continue
                printed = _run_python(_with(urls, block.text), place, block.line, names)
            case "output":
                assert before is not None, f"{place}: output of nothing"
                if before is not ANYTHING:
                    _compare(block.text, before, place)
            case "console":
                _run_console(block.text, place, monkeypatch)
            case "sh":
                _run_shell(block.text, place)
            case kind:
                assert kind in SHOWN, (
                    f"{place}: blocks of {kind or 'no language'!r} are neither run nor listed as shown"
                )
    if no_server is not None:
        raise no_server


def test_the_two_commands_of_the_readme_are_what_ci_runs() -> None:
    """They stand in the README exactly so, and `.ci/run` runs them on a mere clone; so does make."""
    shown = [line for block in blocks(ROOT / "README.md") if block.kind == "sh" for line in block.text.splitlines()]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")

    make = (ROOT / "Makefile").read_text(encoding="utf-8")

    assert shown[:2] == INSTALL
    assert all(command in ci and command in make for command in INSTALL)


def _with(urls: dict[str, str], text: str) -> str:
    for shown, url in urls.items():
        text = text.replace(shown, url)
    return text


def _run_python(text: str, place: str, line: int, names: dict[str, Any]) -> str:
    out = io.StringIO()
    code = compile("\n" * (line - 1) + text, place, "exec")  # so that a traceback names the line of the page
    with contextlib.redirect_stdout(out):
        exec(code, names)
    return out.getvalue()


def _run_console(text: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines(keepends=True)
        more = next((n for n, line in enumerate(lines[1:], 1) if not line.startswith("> ")), len(lines))
        command = "".join([lines[0], *(line[2:] for line in lines[1:more])]).strip()
        setting = re.fullmatch(r"export (\w+)=(\S+)", command)
        if setting:  # for the rest of the page
            monkeypatch.setenv(setting[1], setting[2])
            continue
        _compare("".join(lines[more:]), _run_shell(command, place), f"{place}: {command}")


def _run_shell(command: str, place: str) -> str:
    if [line for line in command.splitlines() if line not in INSTALL] == []:
        return ""  # by .ci/run
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{place}: {command}\nended with {done.returncode} and printed\n{done.stdout}"
    return done.stdout


def _compare(expected: str, actual: str, place: str) -> None:
    wanted, got = ("\n".join(line.rstrip() for line in text.strip().splitlines()) for text in (expected, actual))
    pattern = re.escape(wanted).replace("…", ".*?")
    assert re.fullmatch(pattern, got, re.DOTALL), f"{place}\nshown:\n{wanted}\n\nprinted:\n{got}"


# --- completeness ----------------------------------------------------------------------------------------------------


def _public_names() -> Iterator[str]:
    """Every name that a user may write: those the packages export, and the methods of classes among them."""
    for package in (vstore, mapreduce, replication):
        for name in package.__all__:
            yield name
            value = getattr(package, name)
            if inspect.isclass(value) and value.__module__.split(".")[0] in ("vstore", "mapreduce", "replication"):
                yield from (member for member in vars(value) if not member.startswith("_"))
    for name, value in vars(vstore.resolvers).items():
        if getattr(value, "__module__", None) == "vstore.resolvers" and not name.startswith("_"):
            yield name


def _commands(group: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command under the group, by the words that call it."""
    if not isinstance(group, click.Group):
        yield path, group
        return
    if group.invoke_without_command:
        yield path, group
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from _commands(command, f"{path} {name}".strip())


def test_every_public_name_is_in_the_reference() -> None:
    """What can be imported or called is described in one place."""
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")

    missing = sorted({name for name in _public_names() if not re.search(rf"\b{re.escape(name)}\b", reference)})

    assert missing == []


def test_every_command_and_option_is_in_the_reference() -> None:
    """Under the heading of its command."""
    reference = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### `vstore ([a-z -]+)`\n(.*?)(?=^##|\Z)", reference, re.MULTILINE | re.DOTALL))
    everywhere = reference.partition("## The command line")[2].partition("\n### ")[0]

    missing = [
        f"vstore {name} {option}"
        for name, command in _commands(main)
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.hidden
        for option in parameter.opts
        if f"`{option}" not in sections.get(name, "") + everywhere
    ]

    assert sorted(sections) == sorted(name for name, _command in _commands(main))
    assert missing == []


def test_every_table_and_column_is_in_the_storage_format() -> None:
    """Each table has a row that names its columns in their order."""
    page = (ROOT / "docs" / "storage-format.md").read_text(encoding="utf-8")

    for table in tables.sorted_tables:
        assert f"| `{table.name}` | {', '.join(f'`{column.name}`' for column in table.columns)} |" in page


def test_the_architecture_page_shows_the_layers_that_are_checked() -> None:
    """`pyproject.toml` has the contract, the page has the same list in the same order."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract.get("containers") == ["vstore"])
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")

    section = page.partition("## The layers")[2].partition("\n## ")[0]
    shown = re.findall(r"^\| `([^|]*)` +\|", section, re.MULTILINE)

    assert [" | ".join(row.split("`, `")) for row in shown] == layers


# --- links -----------------------------------------------------------------------------------------------------------


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", WRITTEN, ids=named)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    """To a file that exists, and to a heading in it."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{named(page)} links to {target}"
        assert not anchor or anchor in _anchors(file), f"{named(page)} links to {target}: no such heading"


def test_what_docstrings_refer_to_exists() -> None:
    """`docs/consistency.md, "Time travel"`: the page is there and has the heading."""
    sources = [path for folder in ("vstore", "mapreduce", "replication") for path in (ROOT / folder).rglob("*.py")]
    references = {
        reference
        for path in sources
        for reference in re.findall(r'(docs/[\w/-]+\.md)(?:[,;]?\s+"([^"]+)")?', path.read_text(encoding="utf-8"))
    }

    assert references
    for path, heading in sorted(references):
        assert (ROOT / path).exists(), path
        assert not heading or heading.lower().replace(" ", "-") in _anchors(ROOT / path), (path, heading)
