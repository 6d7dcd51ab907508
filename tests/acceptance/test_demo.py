"""`vstore demo`: the main job on the sample that ships with the package, and the files that it leaves."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from importlib.resources import files
from pathlib import Path

import pytest

import vstore as library
from tests.acceptance.command import finished

SAMPLE = files("vstore.sample")


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the demo was played once, and what it printed."""
    place = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("VSTORE_STATE", str(place / "state"))
        environment.delenv("VSTORE_STORE", raising=False)
        code, out, err = finished("demo", cwd=place)
    assert code == 0, err.decode()
    assert b"Traceback" not in out + err
    return place, out.decode()


def test_the_sample_is_what_its_page_says() -> None:
    """Small, with source and licence stated; 268 versions of 20 documents."""
    page = SAMPLE.joinpath("README.md").read_text()
    data = SAMPLE.joinpath("fires.jsonl.gz").read_bytes()
    lines = [json.loads(line) for line in gzip.decompress(data).splitlines()]

    assert len(data) < 150_000
    assert (len(lines), len({line["key"] for line in lines})) == (268, 20)
    assert "268 versions of 20 documents" in page
    assert all(len(line["doc"]) == 16 for line in lines if "doc" in line)
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    for word in ("CAL FIRE", "https://github.com/simonw/ca-fires-history", "**Licence.**"):
        assert word in page


def test_the_demo_shows_the_main_job(played: tuple[Path, str]) -> None:
    """Import, history, time travel, MapReduce, a replica, edits on both, siblings, merge, and both sides equal."""
    _, out = played

    assert "fires.jsonl.gz: 268 inserted, 0 unchanged, 0 failed" in out
    assert '-  "AcresBurned": 14250,\n+  "AcresBurned": 29585,' in out
    assert '>>> len(fires), len(fires.at("2022-09-06"))\n(11, 8)\n' in out
    assert "\nRiverside\t28307\nSiskiyou\t15562\n" in out  # now
    assert "\nLos Angeles\t5208\n" in out  # a week before
    assert "fires: sent 2 rows, received 3, 2 conflicts left: see `vstore conflicts`\n" in out
    assert "vstore: 'fork-fire' in 'fires' has 2 live siblings: " in out
    assert "settled 1 conflict\n" in out
    assert out.count("fires: nothing to do\n") == 1
    assert {"/AcresBurned", "/PersonnelInvolved"} == set(re.findall(r'"path":"([^"]+)"', out))


def test_the_map_reduce_table_is_what_plain_python_makes_of_the_sample(played: tuple[Path, str]) -> None:
    _, out = played
    newest = {}
    for line in gzip.decompress(SAMPLE.joinpath("fires.jsonl.gz").read_bytes()).splitlines():
        row = json.loads(line)
        newest[row["key"]] = row.get("doc")
    acres: dict[str, int] = {}
    for fire in filter(None, newest.values()):
        for county in fire["Counties"]:
            acres[county] = acres.get(county, 0) + (fire["AcresBurned"] or 0)

    table = "".join(f"{county}\t{acres[county]}\n" for county in sorted(acres))
    assert f"\n{table}" in out


def test_the_demo_leaves_two_equal_replicas_to_play_with(
    played: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = played
    monkeypatch.setenv("VSTORE_STATE", str(place / "state"))
    urls = [f"sqlite:///{place / 'vstore-demo' / name}.db" for name in ("office", "field")]

    with library.open(urls[0], create=False) as office, library.open(urls[1], create=False) as field:
        fires, others = office["fires"], field["fires"]
        assert dict(fires.items()) == dict(others.items())
        assert {key: fires.read(key).rev for key in fires} == {key: others.read(key).rev for key in others}
        assert (fires["mosquito-fire"]["PersonnelInvolved"], fires["mosquito-fire"]["AcresBurned"]) == (2100, 33754)
        assert fires["fork-fire"]["PercentContained"] == 60
        assert [*office.check(), *field.check()] == []


def test_the_commands_that_the_demo_suggests_work(played: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line at its end, as it stands, in the folder and with the variable that it names."""
    place, out = played
    folder, variable, *commands = [
        line.strip() for line in out[out.index("Now you.") :].splitlines() if line[:1] == " "
    ]
    monkeypatch.chdir(place)
    monkeypatch.setenv("VSTORE_STATE", str(place / "state"))
    monkeypatch.chdir(folder.removeprefix("cd "))
    monkeypatch.setenv(*variable.removeprefix("export ").split("="))

    assert len(commands) == 7
    for command in commands:
        code, printed, complaint = finished(*shlex.split(command.partition(" | ")[0])[1:])
        assert (code, bool(printed)) == (0, True), complaint.decode()


def test_playing_again_takes_a_new_folder_and_never_one_that_is_in_use(
    played: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _ = played
    monkeypatch.setenv("VSTORE_STATE", str(place / "state"))

    refused = finished("demo", "--folder", "vstore-demo", cwd=place)
    again = finished("demo", cwd=place)

    assert refused[0] == 1
    assert b"vstore: vstore-demo is not empty. Nothing was changed. Name a new folder." in refused[2]
    assert again[0] == 0
    assert (place / "vstore-demo-2" / "office.db").exists()
