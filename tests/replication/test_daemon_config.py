"""replicator.toml: what a file says, and that every mistake is named with its line and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from replication.daemon.config import Config, config_of, default_socket, seconds_of, socket_of
from replication.daemon.positions import line_at, lines_of
from replication.filters import Filter
from tests.acceptance.command import vstore
from vstore import ConfigurationError
from vstore.resolvers import json3

EXAMPLE = Path(__file__).parents[2] / "examples" / "replicator.toml"


def read(folder: Path, text: str, **environment: str) -> Config:
    """What a file with this text says."""
    path = folder / "replicator.toml"
    path.write_text(text, encoding="utf-8")
    return config_of(path, environment)


def mistakes(folder: Path, text: str, **environment: str) -> list[str]:
    """What is wrong with a file of this text, one entry for each mistake, without the name of its folder."""
    with pytest.raises(ConfigurationError) as refused:
        read(folder, text, **environment)
    lines = str(refused.value).splitlines()
    assert lines[-1].endswith("Nothing was done.") or "Nothing was done." in lines[-1]
    return [line.replace(f"{folder}/", "") for line in lines]


# --- what it says ----------------------------------------------------------------------------------------------------


def test_a_file_with_everything_in_it(tmp_path: Path) -> None:
    (tmp_path / "filters.py").write_text("def is_public(key, value):\n    return value.get('public')\n")
    config = read(
        tmp_path,
        """
        [replicator]
        socket = "run/replicator.sock"
        state = "/var/lib/vstore"
        threads = 8
        metrics = "0.0.0.0:9464"
        log_format = "json"
        log_level = "debug"

        [[replication]]
        name = "notes"
        source = "sqlite:///laptop.db"
        target = ["postgresql://me@db1.example/app", "mariadb://db2.example/app"]
        both = true
        collections = ["notes", "tasks"]
        filter = { prefix = "fr/", fields = { "author.country" = ["FR", "BE"] }, predicate = "filters.py:is_public" }
        history = 2026-11-01T00:00:00Z
        resolver = "json3"
        reconcile = "12h"
        poll = "250ms"
        create = false
        enabled = false
        """,
    )
    [one] = config.replications

    assert config.settings.socket == tmp_path / "run" / "replicator.sock"
    assert config.settings.state == Path("/var/lib/vstore")
    assert (config.settings.threads, config.settings.metrics) == (8, ("0.0.0.0", 9464))
    assert (config.settings.log_format, config.settings.log_level) == ("json", "debug")
    assert one.name == "notes"
    assert one.source == (f"sqlite:///{tmp_path}/laptop.db",)
    assert one.target == ("postgresql://me@db1.example/app", "mariadb://db2.example/app")
    assert one.both
    assert one.collections == ("notes", "tasks")
    assert isinstance(one.filter, Filter)
    assert one.filter.wants("fr/1", {"author": {"country": "BE"}, "public": True})
    assert not one.filter.wants("fr/1", {"author": {"country": "BE"}, "public": False})
    assert one.history == 1793491200000000
    assert one.resolver is json3
    assert (one.reconcile_seconds, one.poll_seconds) == (12 * 3600.0, 0.25)
    assert (one.create, one.enabled) == (False, False)


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    config = read(tmp_path, '[[replication]]\nname="a"\nsource="sqlite:///a.db"\ntarget="sqlite:///b.db"\n')
    [one] = config.replications

    assert config.settings.socket == default_socket()
    assert (config.settings.threads, config.settings.metrics) == (4, None)
    assert (one.both, one.collections, one.filter, one.history, one.resolver) == (False, None, None, "heads", None)
    assert (one.reconcile_seconds, one.poll_seconds, one.create, one.enabled) == (6 * 3600.0, 1.0, True, True)


def test_variables_of_the_environment_are_put_in_and_escaped_where_passwords_are(tmp_path: Path) -> None:
    """A password may have any characters; a whole URL, or a folder, is taken as it is."""
    text = '[[replication]]\nname="a"\nsource="postgresql://${WHO}:${WORD}@${HOST}/app"\ntarget="${WHOLE}"\n'

    [one] = read(
        tmp_path, text, WHO="me", WORD="p@ss:/w%rd", HOST="db1.example", WHOLE="mariadb://x:y@db2.example/app"
    ).replications

    assert one.source == ("postgresql://me:p%40ss%3A%2Fw%25rd@db1.example/app",)
    assert one.target == ("mariadb://x:y@db2.example/app",)


def test_the_example_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the documentation shows it, with the variable that it names."""
    monkeypatch.setenv("PGPASSWORD", "secret")

    checked = vstore("replicator", "check", "--config", str(EXAMPLE))

    assert checked.exit_code == 0, checked.output
    assert "secret" not in checked.output
    assert len(config_of(EXAMPLE).replications) >= 3


def test_the_unit_of_systemd_starts_what_there_is_and_gives_it_time_to_end() -> None:
    """Its commands are ours, it waits longer than the ten seconds that the daemon may take, and it is hardened."""
    lines = (EXAMPLE.parent / "vstore-replicator.service").read_text().splitlines()
    unit = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    commands = [unit[name].split() for name in ("ExecStartPre", "ExecStart")]

    for words in commands:
        assert vstore(*words[1:-2], "--help").exit_code == 0
        assert words[-2:] == ["--config", "/etc/vstore/replicator.toml"]
    assert int(unit["TimeoutStopSec"]) > 10
    assert (unit["Restart"], unit["KillSignal"]) == ("on-failure", "SIGTERM")
    assert (unit["NoNewPrivileges"], unit["ProtectSystem"], unit["CapabilityBoundingSet"]) == ("yes", "strict", "")


@pytest.mark.parametrize(("text", "seconds"), [("500ms", 0.5), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("1d", 86400)])
def test_durations(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


# --- mistakes --------------------------------------------------------------------------------------------------------

ENDS = 'source = "sqlite:///a.db"\ntarget = "sqlite:///b.db"\n'


@pytest.mark.parametrize(
    ("line", "what", "then"),
    [
        ("pol = '1s'", "has no setting 'pol'", "Did you mean 'poll'?"),
        ("zzz = 1", "has no setting 'zzz'", "It has name, source, target"),
        ("both = 'yes'", "both = 'yes'", "write true or false, without quotation marks"),
        ("both = 1", "both = 1", "write true or false"),
        ("collections = 'notes'", "collections = 'notes'", "write a list of names"),
        ("collections = ['a', 'a']", "'a' stands there twice", "Remove one"),
        ("collections = ['']", "'' is no name of a collection", ""),
        ("history = 'everything'", "history = 'everything'", 'write "heads", "all", or since when'),
        ("history = true", "history = true", 'write "heads", "all"'),
        ("resolver = 'json4'", "no resolver is named 'json4'", "Did you mean 'json3'?"),
        ("resolver = 'nowhere.py:f'", "nowhere.py is not a Python file", ""),
        ("reconcile = 6", "reconcile = 6", 'write a duration with its unit, such as "500ms"'),
        ("reconcile = '6 parsecs'", "reconcile = '6 parsecs'", "write a duration with its unit"),
        ("poll = '0s'", "poll = '0s'", "write a duration"),
        ("filter = 'fr/'", "filter = 'fr/'", 'write a table, such as { prefix = "fr/" }'),
        ("filter = {}", "leaves nothing out", ""),
        ("filter = { prefx = 'a' }", "a filter has no setting 'prefx'", "Did you mean 'prefix'?"),
        ("filter = { fields = 'a' }", "fields = 'a'", "write a table of values"),
        ("filter = { predicate = 'nowhere.py:f' }", "nowhere.py is not a Python file", ""),
    ],
)
def test_a_mistake_in_a_replication_is_named_with_its_line(tmp_path: Path, line: str, what: str, then: str) -> None:
    text = f'# a comment\n\n[[replication]]\nname = "a"\n{ENDS}{line}\n'

    [mistake] = mistakes(tmp_path, text)

    assert mistake.startswith("replicator.toml, line 7: ")
    assert what in mistake
    assert then in mistake


@pytest.mark.parametrize(
    ("line", "what", "then"),
    [
        ("thread = 4", "[replicator] has no setting 'thread'", "Did you mean 'threads'?"),
        ("threads = 0", "threads = 0", "write a whole number from 1 to 256"),
        ("threads = '4'", "threads = '4'", "write a whole number"),
        ("metrics = true", "metrics = true", "write a port"),
        ("metrics = 'here'", "metrics = 'here'", "write a port"),
        ("log_format = 'xml'", "log_format = 'xml'", "it is one of logfmt, json"),
        ("log_level = 'loud'", "log_level = 'loud'", "it is one of debug, info, warning, error"),
        (f"socket = '/tmp/{'x' * 100}'", "socket = ", "at most 100 bytes"),
        ("socket = 7", "socket = 7", "write a text, in quotation marks"),
    ],
)
def test_a_mistake_in_the_settings_is_named_with_its_line(tmp_path: Path, line: str, what: str, then: str) -> None:
    [mistake] = mistakes(tmp_path, f'[replicator]\n{line}\n[[replication]]\nname = "a"\n{ENDS}')

    assert mistake.startswith("replicator.toml, line 2: ")
    assert what in mistake
    assert then in mistake


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("app.db", "is not a URL of a database"),
        ("mongodb://host/app", "is not a kind of database vstore knows"),
        ("sqlite://", "this is a temporary store"),
        ("postgresql://${NOBODY}@host/app", "the environment has no variable NOBODY"),
        ("", "write a text"),
    ],
)
def test_a_url_that_is_none_is_refused(tmp_path: Path, url: str, what: str) -> None:
    text = f'[[replication]]\nname = "a"\nsource = "sqlite:///a.db"\ntarget = ["sqlite:///b.db", "{url}"]\n'

    [mistake] = mistakes(tmp_path, text)

    assert mistake.startswith("replicator.toml, line 4: target = ")
    assert what in mistake


def test_a_password_is_in_no_message(tmp_path: Path) -> None:
    text = '[[replication]]\nname = "a"\nsource = "postgres+nothing://me:${WORD}@host/app"\ntarget = "sqlite:///b.db"\n'

    [mistake] = mistakes(tmp_path, text, WORD="secret")

    assert "secret" not in mistake
    assert "line 3" in mistake


@pytest.mark.parametrize(
    "text",
    [
        '[[replication]]\nname = "a"\nsource = "postgres+nothing://me:secret@host/app"\ntarget = "sqlite:///b.db"\n',
        '[replication]\nsource = "postgresql://me:secret@host/app"\n',
        '[[replication]]\nname = "a"\nsource = ["mongodb://me:secret@host/app"]\ntarget = "sqlite:///b.db"\n',
    ],
)
def test_nor_is_one_that_stands_in_the_file(tmp_path: Path, text: str) -> None:
    """Mistakes end up in the log, which more people may read."""
    [mistake] = mistakes(tmp_path, text)

    assert "secret" not in mistake


def test_a_database_is_one_shard(tmp_path: Path) -> None:
    twice = f'["sqlite:///{tmp_path}/a.db", "sqlite:///a.db"]'
    text = f'[[replication]]\nname = "a"\nsource = {twice}\ntarget = "sqlite:///b.db"\n'

    [mistake] = mistakes(tmp_path, text)

    assert "line 3" in mistake
    assert "a database stands there twice" in mistake


def test_a_file_that_ends_the_program_is_a_mistake_like_any_other(tmp_path: Path) -> None:
    """And does not end the daemon, or a reload of it."""
    (tmp_path / "ends_itself.py").write_text("import sys\nsys.exit(3)\n")
    text = f'[[replication]]\nname = "a"\n{ENDS}resolver = "ends_itself.py:merge"\n'

    [mistake] = mistakes(tmp_path, text)

    assert "cannot be imported: SystemExit: 3" in mistake


def test_a_mark_at_the_beginning_of_the_file_is_no_part_of_it(tmp_path: Path) -> None:
    """As some editors write it."""
    (tmp_path / "replicator.toml").write_text(f'\ufeff[[replication]]\nname = "a"\n{ENDS}', encoding="utf-8")

    assert config_of(tmp_path / "replicator.toml").replications[0].name == "a"


def test_what_is_missing_is_named_at_the_replication_that_misses_it(tmp_path: Path) -> None:
    text = f'[[replication]]\nname = "a"\n{ENDS}\n[[replication]]\nname = "b"\n'

    found = mistakes(tmp_path, text)

    assert [mistake.partition(": ")[0] for mistake in found] == ["replicator.toml, line 6"] * 2
    assert "'b' has no source. Add one: source = " in found[0]
    assert "'b' has no target. Add one: target = " in found[1]


def test_all_mistakes_are_named_at_once_in_the_order_of_lines(tmp_path: Path) -> None:
    text = (
        f'[replicator]\nthreads = 0\n\n[[replication]]\nname = "a"\n{ENDS}pol = 1\n'
        "[replicater]\n[[replications]]\n[daemon.log]\n"
    )

    found = mistakes(tmp_path, text)

    assert [mistake.partition(": ")[0].rpartition(" ")[2] for mistake in found] == ["2", "8", "9", "10", "11"]
    assert "Did you mean 'replicator'?" in found[2]
    assert "Did you mean 'replication'?" in found[3]


def test_a_name_is_given_once(tmp_path: Path) -> None:
    text = (
        f'[[replication]]\nname = "a"\n{ENDS}\n'
        '[[replication]]\nname = "a"\nsource = "sqlite:///b.db"\ntarget = "sqlite:///c.db"\n'
    )

    [mistake] = mistakes(tmp_path, text)

    assert mistake.startswith("replicator.toml, line 7: the name 'a' is taken, on line 1. Choose another.")


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("sqlite:///a.db", "sqlite:///sub/../a.db"),
        ("postgresql://me@host/app", "postgresql+psycopg://you:word@host/app"),
    ],
)
def test_a_store_is_not_replicated_to_itself(tmp_path: Path, source: str, target: str) -> None:
    """However its URL is written."""
    [mistake] = mistakes(tmp_path, f'[[replication]]\nname = "a"\nsource = "{source}"\ntarget = "{target}"\n')

    assert mistake.startswith("replicator.toml, line 4: ")
    assert "at both ends" in mistake


def test_the_same_replication_twice_is_refused_but_parts_of_it_are_not(tmp_path: Path) -> None:
    """Of other collections, with other filters, or the other way."""
    one = f'[[replication]]\nname = "a"\n{ENDS}'
    same = f'[[replication]]\nname = "b"\n{ENDS}'
    other_way = '[[replication]]\nname = "b"\nsource = "sqlite:///b.db"\ntarget = "sqlite:///a.db"\n'

    [mistake] = mistakes(tmp_path, f"{one}\n{same}")
    read(tmp_path, f'{one}collections = ["x"]\n{same}collections = ["y"]\n')
    read(tmp_path, f"{one}filter = {{ prefix = 'x' }}\n{same}filter = {{ prefix = 'y' }}\n")
    read(tmp_path, f"{one}\n{other_way}")

    assert mistake.startswith("replicator.toml, line 8: 'b' does the same as 'a', on line 1. Remove one.")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it has no [[replication]]"),
        ("[[replication]\n", "replicator.toml, line 1, column "),
        ("a = \n", "replicator.toml, line 1, column "),
        ("[replication]\nname = 'a'\n", "write [[replication]] with two brackets"),
        ("replicator = 1\n", "[replicator] is 1. Write a table."),
        ("replication = [1]\n", "a replication is 1. Write a table."),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, text: str, what: str) -> None:
    assert any(what in mistake for mistake in mistakes(tmp_path, text))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file"):
        config_of(tmp_path / "replicator.toml")
    (tmp_path / "replicator.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is not UTF-8"):
        config_of(tmp_path / "replicator.toml")


# --- lines -----------------------------------------------------------------------------------------------------------


def test_every_setting_is_found_on_its_line() -> None:
    """Tables in arrays, sub-tables, dotted and quoted keys, and what only looks like a setting."""
    text = '''top = 1
[a]
x = """
y = 2
"""
"y" = [
  "z = 1", # ]
  ["[b]"],
]
[[list]]
one.two = 1
[[list]]
[list.filter]   # of the second
prefix = '['
[ a . "b c" ]
d = { e = 1 }
'''
    lines = lines_of(text)
    found: dict[Any, int | None] = {place: line for place, line in lines.items() if place not in (("a",), ("list",))}

    assert found == {
        ("top",): 1,
        ("a", "x"): 3,
        ("a", "y"): 6,
        ("list", 0): 10,
        ("list", 0, "one"): 11,
        ("list", 0, "one", "two"): 11,
        ("list", 1): 12,
        ("list", 1, "filter"): 13,
        ("list", 1, "filter", "prefix"): 14,
        ("a", "b c"): 15,
        ("a", "b c", "d"): 16,
    }
    assert line_at(lines, ("a", "b c", "d", "e")) == 16
    assert line_at(lines, ("nowhere",)) is None


def test_where_the_daemon_listens_is_found_in_a_file_in_the_middle_of_an_edit(tmp_path: Path) -> None:
    """Whoever has made a mistake elsewhere can still ask the daemon that runs, and stop it."""
    file = tmp_path / "replicator.toml"
    file.write_text('[replicator]\nsocket = "here.sock"\nthreads = "many"\n\n[[replication]]\nnme = "typo"\n')

    assert socket_of(file) == tmp_path / "here.sock"

    file.write_text("[replicator]\nsocket = 7\n")
    with pytest.raises(ConfigurationError, match="line 2"):
        socket_of(file)
