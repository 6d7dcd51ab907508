"""`demo`: the main job on the sample that ships with vstore, as a play in nine scenes.

What is shown is what runs: a line after `$` goes to the same `main` as one that
was typed, a line after `>>>` to the interpreter. So nothing here knows MapReduce
or replication; their commands are found as on any command line.
"""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from textwrap import dedent
from typing import Any

import click

from vstore.cli.output import flush, text
from vstore.cli.program import main
from vstore.errors import ConfigurationError, StoreError

FOLDER = "vstore-demo"

QUESTIONS = '''\
"""What we want to know of the fires, and who is right when two reports differ. Change it, and ask again."""

from vstore.resolvers import fields, json3, maximum


def acres_by_county(key, fire):
    """Map: called for each document; yields (county, acres). `vstore map` adds up the acres of each county."""
    for county in fire["Counties"]:
        yield county, fire["AcresBurned"] or 0


# Resolver: called with the siblings of one document and their common ancestor. Of two figures for how much is contained
# the higher one counts, since news only ever travels late; everything else merges field by field.
settle = fields({"/PercentContained": maximum}, default=json3)
'''


@click.command("demo")
@click.option("--folder", type=click.Path(path_type=Path), help=f"Where to play; must be new or empty. [{FOLDER}]")
def demo(folder: Path | None) -> None:
    """Play the main job on a small real data set.

    Two replicas of a store with wildfire reports: history, time travel, MapReduce, edits on both sides, sync, a
    conflict and its merge. Takes some seconds, and leaves the files to play with.
    """
    place = _made(folder)
    cores = os.cpu_count() or 1
    office, field = "sqlite:///office.db", "sqlite:///field.db"
    names: dict[str, Any] = {}
    with contextlib.chdir(place):
        Path("fires.jsonl.gz").write_bytes(files("vstore.sample").joinpath("fires.jsonl.gz").read_bytes())
        Path("questions.py").write_text(QUESTIONS, encoding="utf-8")
        _say(f"""
            Everything happens in {place}/. A line after $ is a command, one after >>> is Python;
            both can be repeated there as they stand.""")

        _scene("1. Import a history: each line of the file is a version of a document, with its time.")
        _run(f"vstore import fires fires.jsonl.gz --store {office}")
        _run(f"vstore keys fires --limit 3 --store {office}")
        _run(f"vstore stats --store {office}")

        _scene("2. Nothing is ever overwritten: how one fire grew, and what changed from its version 17 to its 18.")
        _run(f"vstore history fires mosquito-fire --limit 4 --store {office}")
        _run(f"vstore diff fires mosquito-fire 17 18 --store {office}")

        _scene("3. Time travel: a document, and a whole collection, as they were at an earlier moment.")
        _python(
            names,
            "import vstore",
            f'office = vstore.open("{office}")',
            'fires = office["fires"]',
            'fires["mill-fire"]["AcresBurned"], fires.at("2022-09-03")["mill-fire"]["AcresBurned"]',
            'len(fires), len(fires.at("2022-09-06"))',
        )

        _scene(f"4. MapReduce: a Python function over all documents, on {cores} cores; now, and as of a week before.")
        _say(f"questions.py has:\n{_excerpt('def acres_by_county')}")
        _run(f"vstore map questions.py:acres_by_county fires --workers {cores} --store {office}")
        _run(f"vstore map questions.py:acres_by_county fires --at 2022-09-03 --store {office}")

        _scene("5. A second replica with the whole history: say, on a laptop that goes to the fires.")
        _run(f"vstore copy --to {field} --store {office}")

        _scene("6. Both are edited, and neither waits for the other. Two fires are edited on both sides.")
        _python(
            names,
            f'field = vstore.open("{field}")',
            'office["fires"].modify("mosquito-fire", lambda fire: {**fire, "PersonnelInvolved": 2100}).rev',
            'field["fires"].modify("mosquito-fire", lambda fire: {**fire, "AcresBurned": 33754}).rev',
            'office["fires"].modify("fork-fire", lambda fire: {**fire, "PercentContained": 45}).rev',
            'field["fires"].modify("fork-fire", lambda fire: {**fire, "PercentContained": 60}).rev',
            'field["fires"]["camp-note"] = {"Counties": [], "AcresBurned": None, "Text": "Bring batteries."}',
            "office.close()",
            "field.close()",
        )

        _scene(
            "7. Sync exchanges what each lacks. Edits that did not know of each other become siblings; none is lost."
        )
        _run(f"vstore sync --store {office} --with {field}")
        _run(f"vstore conflicts fires --store {office}")
        _run(f"vstore get fires fork-fire --store {office}")

        _scene(
            "8. Settle them: a three-way merge where different fields were edited, a function of ours where one was."
        )
        _run(f"vstore resolve fires mosquito-fire --resolver json3 --store {office}")
        _say(
            f"json3 would keep two values of one field as siblings. For those, questions.py has:\n{_excerpt('settle')}"
        )
        _run(f"vstore sync --store {office} --with {field} --resolver questions.py:settle")
        _run(f"vstore get fires fork-fire --store {field}")
        _run(f"vstore sync --store {office} --with {field}")

        _scene("9. A merge is a version like any other: history shows both edits, and diff what they came to.")
        _run(f"vstore history fires mosquito-fire --limit 4 --store {office}")
        _run(f"vstore diff fires mosquito-fire 21 23 --json --store {office}")
        _run(f"vstore check --store {office}")
        _run(f"vstore check --store {field}")
    _say(f"""

        Now you. The files stay as they are:

            cd {shlex.quote(str(place))}
            export VSTORE_STORE={office}
            vstore get fires mill-fire
            vstore history fires fairview-fire
            vstore at fires 2022-09-03T12:00:00Z mountain-fire
            vstore export fires --history | head -n 3
            vstore map questions.py:acres_by_county fires --json
            vstore changes fires --values
            vstore --help""")


def _made(folder: Path | None) -> Path:
    """The folder to play in, made: the one that was asked for, else the first free of vstore-demo, vstore-demo-2, …"""
    if folder is not None:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigurationError(f"{folder} is not empty. Nothing was changed. Name a new folder.")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    number = 1
    while True:
        place = Path(FOLDER if number == 1 else f"{FOLDER}-{number}")
        try:
            place.mkdir()
        except FileExistsError:
            number += 1
        else:
            return place


def _scene(title: str) -> None:
    text(f"\n\n{title}\n{'─' * len(title)}")


def _say(words: str) -> None:
    text(f"\n{dedent(words).strip(chr(10))}")


def _run(command: str) -> None:
    """Shows a command line and runs it as the shell would; an error is part of the show."""
    text(f"\n$ {command}")
    flush()
    try:
        main.main(shlex.split(command)[1:], prog_name="vstore", standalone_mode=False)
    except StoreError as error:
        text(f"vstore: {error}")
    flush()


def _python(names: dict[str, Any], *lines: str) -> None:
    """Shows lines of Python, and runs each as the interpreter would."""
    text("")
    for line in lines:
        text(f">>> {line}")
        try:
            value = eval(compile(line, "<demo>", "eval"), names)
        except SyntaxError:
            exec(compile(line, "<demo>", "exec"), names)
        else:
            if value is not None:
                text(repr(value))
    flush()


def _excerpt(beginning: str) -> str:
    """The lines of questions.py from one that begins so to the next blank one, indented."""
    return "\n".join(f"    {line}" for line in _paragraph(QUESTIONS.splitlines(), beginning))


def _paragraph(lines: list[str], beginning: str) -> Iterator[str]:
    start = next(number for number, line in enumerate(lines) if line.startswith(beginning))
    for line in lines[start:]:
        if not line:
            return
        yield line
