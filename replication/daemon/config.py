"""replicator.toml: what the daemon is to do, or every mistake in the file, each with its line.

    [replicator]                        # all of it may be left out
    socket = "replicator.sock"          # where `vstore replicator status` and others speak with the daemon
    state = "state"                     # proofs of actors; else as everywhere, $VSTORE_STATE
    threads = 4                         # replications that work at once
    metrics = 9464                      # Prometheus text on 127.0.0.1, or "HOST:PORT"
    log_format = "logfmt"               # or "json"
    log_level = "info"

    [[replication]]
    name = "notes"
    source = "sqlite:///laptop.db"
    target = ["postgresql://vstore:${PGPASSWORD}@db1.example/app", "postgresql://…"]     # one URL for each shard
    both = true
    collections = ["notes", "tasks"]    # all of them, if left out
    filter = { prefix = "fr/", fields = { "author.country" = ["FR", "BE"] }, predicate = "filters.py:is_public" }
    history = "heads"                   # or "all", or the moment since when
    resolver = "json3"                  # or "resolvers.py:merge"
    reconcile = "6h"                    # or "never"
    poll = "1s"
    create = true                       # make the target if it is not there
    enabled = true

Paths are from the folder of the file, of SQLite databases and of Python files
too. `${NAME}` in a URL is a variable of the environment; as a user or password it
may hold any characters.

Reading has no effect on any store. It imports the Python files that are named.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from replication.daemon.positions import Path as Place
from replication.daemon.positions import line_at, lines_of
from replication.filters import Filter
from replication.replicator import POLL_SECONDS, RECONCILE_SECONDS
from replication.scope import History
from vstore.cli.functions import loaded, resolver_of
from vstore.errors import ConfigurationError, InvalidKey
from vstore.hlc import moment_us
from vstore.identity import state_directory
from vstore.partition import check_key
from vstore.resolvers import Resolver
from vstore.sql.database import Database

THREADS = 4
SOCKET_BYTES = 100
"""How long the path of a socket may be: systems allow from 104 bytes, with a zero at the end."""

_VARIABLE = re.compile(r"\$\{(\w*)\}")
_PASSWORD = re.compile(r"(://[^\s:/@]*:)(?!\$\{)[^\s@]+(?=@)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HISTORIES: dict[str, History] = {"heads": "heads", "all": "all"}
_MISSING: Any = object()


@dataclass(frozen=True)
class Settings:
    """How the daemon itself runs. `metrics` is a host and a port; `state` None is where it is for everybody."""

    socket: Path
    state: Path | None = None
    threads: int = THREADS
    metrics: tuple[str, int] | None = None
    log_format: str = "logfmt"
    log_level: str = "info"


@dataclass(frozen=True)
class Replication:
    """One replication, as `Replicator` takes it, but that its ends are the URLs of their shards."""

    name: str
    source: tuple[str, ...]
    target: tuple[str, ...]
    both: bool = False
    collections: tuple[str, ...] | None = None
    filter: Filter | None = None
    history: History = "heads"
    resolver: Resolver | None = None
    reconcile_seconds: float | None = RECONCILE_SECONDS
    poll_seconds: float = POLL_SECONDS
    create: bool = True
    enabled: bool = True


@dataclass(frozen=True)
class Config:
    """A whole file."""

    path: Path
    settings: Settings
    replications: tuple[Replication, ...]


def default_socket() -> Path:
    """Where the daemon of this user listens if its file does not say: in the directory of proofs."""
    return state_directory() / "replicator.sock"


def socket_of(file: str | Path) -> Path:
    """Where the daemon of a file listens, whatever else the file says: it may be in the middle of an edit.

    Raises:
        ConfigurationError: it cannot be read, or says something impossible of the socket.
    """
    path = Path(file)
    tables, text = _tables(path)
    settings = tables.get("replicator", {})
    only = {"replicator": {"socket": settings["socket"]}} if isinstance(settings, dict) and "socket" in settings else {}
    return _Reader(path, text, os.environ).socket(only)


def config_of(file: str | Path, environment: Mapping[str, str] | None = None) -> Config:
    """What a file says.

    Args:
        environment: what `${NAME}` stands for; else that of the process.

    Raises:
        ConfigurationError: it cannot be read, or there are mistakes in it. The
            message has all of them, one on each line, with its place and what
            to do.
    """
    path = Path(file)
    tables, text = _tables(path)
    return _Reader(path, text, os.environ if environment is None else environment).config(tables)


def _tables(path: Path) -> tuple[dict[str, Any], str]:
    """What a file says as TOML, and its text."""
    try:
        text = path.read_bytes().decode("utf-8-sig")  # some editors begin a file with a mark
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}. Nothing was done.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 ({error.reason}). Nothing was done. Save it as such.") from error
    try:
        return tomllib.loads(text), text
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        place = f"{path}, line {where[1]}, column {where[2]}" if where else f"{path}, at its end"
        what = re.sub(r" \(at .*\)$", "", str(error))
        raise ConfigurationError(f"{place}: {what}. Nothing was done. The file is not TOML.") from error


class _Mistake(Exception):
    """What is wrong with a value, and what to do."""


class _Table:
    """A table that is read setting by setting; what is left over at the end was not known."""

    def __init__(self, reader: _Reader, place: Place, values: Any, what: str) -> None:
        self.reader = reader
        self.place = place
        self.what = what
        self.known: list[str] = []
        self.values: dict[str, Any] = values if isinstance(values, dict) else {}
        if not isinstance(values, dict):
            reader.refuse(place, f"{what} is {_shown(values)}. Write a table.")

    def get(self, name: str, read: Callable[[Any, Place], Any], default: Any = None) -> Any:
        """A setting, or the default; after a mistake too, so that the rest can be read."""
        self.known.append(name)
        if name not in self.values:
            if default is _MISSING:
                self.reader.refuse(self.place, f"{self.what} has no {name}. Add one: {_EXAMPLES[name]}.")
                return None
            return default
        try:
            return read(self.values[name], (*self.place, name))
        except _Mistake as mistake:
            self.reader.refuse((*self.place, name), f"{name} = {_shown(self.values[name])}: {mistake}")
            return None if default is _MISSING else default

    def end(self) -> None:
        """Refuses the settings that nobody has asked for."""
        for name in self.values:
            if name not in self.known:
                self.reader.refuse(
                    (*self.place, name), f"{self.what} has no setting {name!r}. {_nearest(name, self.known)}"
                )


class _Reader:
    """One file, and the mistakes in it."""

    def __init__(self, path: Path, text: str, environment: Mapping[str, str]) -> None:
        self._path = path
        self._folder = path.resolve().parent
        self._lines = lines_of(text)
        self._environment = environment
        self._mistakes: list[tuple[int, str]] = []

    def refuse(self, place: Place, problem: str) -> None:
        """Notes a mistake."""
        line = line_at(self._lines, place)
        where = f"{self._path}, line {line}" if line is not None else str(self._path)
        without_passwords = _PASSWORD.sub(r"\1***", problem)  # a log is read by more people than the file
        self._mistakes.append((line or 0, f"{where}: {without_passwords}"))

    def socket(self, tables: dict[str, Any]) -> Path:
        """Where the daemon listens. Raises ConfigurationError with what is wrong with that."""
        whole = _Table(self, (), tables, "the file")
        settings = whole.get("replicator", lambda values, place: self._settings(place, values))
        self._end()
        return default_socket() if settings is None else settings.socket

    def _end(self) -> None:
        if self._mistakes:
            lines = [problem for _line, problem in sorted(self._mistakes, key=lambda each: each[0])]
            raise ConfigurationError("\n".join([*lines[:-1], f"{lines[-1]} Nothing was done."]))

    def config(self, tables: dict[str, Any]) -> Config:
        """The whole file. Raises ConfigurationError with all mistakes."""
        whole = _Table(self, (), tables, "the file")
        settings = whole.get("replicator", lambda values, place: self._settings(place, values))
        if settings is None:
            settings = self._settings((), {})
        found = whole.get("replication", lambda values, place: self._replications(place, values), [])
        whole.end()
        if not found and not self._mistakes:
            self.refuse((), "it has no [[replication]]. Add one, with name, source and target.")
        self._end()
        return Config(self._path, settings, tuple(found))

    # --- the tables --------------------------------------------------------------------------------------------------

    def _settings(self, place: Place, values: Any) -> Settings:
        table = _Table(self, place, values, "[replicator]")
        found = Settings(
            socket=table.get("socket", self._socket) or default_socket(),
            state=table.get("state", self._file),
            threads=table.get("threads", _between(1, 256), THREADS),
            metrics=table.get("metrics", _address),
            log_format=table.get("log_format", _one_of("logfmt", "json"), "logfmt"),
            log_level=table.get("log_level", _one_of("debug", "info", "warning", "error"), "info"),
        )
        table.end()
        return found

    def _replications(self, place: Place, values: Any) -> list[Replication]:
        if not isinstance(values, list):
            raise _Mistake("write [[replication]] with two brackets, once for each.")
        found: list[Replication] = []
        for number, value in enumerate(values):
            at = (*place, number)
            each = self._replication(at, value)
            if each is not None:
                self._compare(at, each, found)
                found.append(each)
        return found

    def _replication(self, place: Place, values: Any) -> Replication | None:
        named = values.get("name") if isinstance(values, dict) else None
        table = _Table(self, place, values, f"the replication {named!r}" if isinstance(named, str) else "a replication")
        before = len(self._mistakes)
        found = Replication(
            name=table.get("name", _name, _MISSING),
            source=table.get("source", self._urls, _MISSING),
            target=table.get("target", self._urls, _MISSING),
            both=table.get("both", _truth, False),
            collections=table.get("collections", _collections),
            filter=table.get("filter", self._filter),
            history=table.get("history", _history, "heads"),
            resolver=table.get("resolver", self._resolver),
            reconcile_seconds=table.get("reconcile", _duration_or_never, RECONCILE_SECONDS),
            poll_seconds=table.get("poll", _duration, POLL_SECONDS),
            create=table.get("create", _truth, True),
            enabled=table.get("enabled", _truth, True),
        )
        table.end()
        return found if len(self._mistakes) == before else None

    def _compare(self, place: Place, each: Replication, others: Sequence[Replication]) -> None:
        """Refuses what cannot be told apart from another, or leads from a store to itself."""
        for number, other in enumerate(others):
            line = line_at(self._lines, (*place[:-1], number))
            if other.name == each.name:
                self.refuse((*place, "name"), f"the name {each.name!r} is taken, on line {line}. Choose another.")
            ends, others_ends = _ends(each), _ends(other)
            same = ends == others_ends or (ends == others_ends[::-1] and each.both and other.both)
            if same and _overlap(each, other) and each.filter == other.filter:
                self.refuse(
                    (*place, "source"), f"{each.name!r} does the same as {other.name!r}, on line {line}. Remove one."
                )
        shared = set(_ends(each)[0]) & set(_ends(each)[1])
        if shared:
            self.refuse(
                (*place, "target"),
                f"{each.name!r} has {sorted(shared)[0]} at both ends. Name the URLs of two replicas.",
            )

    # --- values that need the file -----------------------------------------------------------------------------------

    def _text(self, given: Any) -> str:
        if not isinstance(given, str) or not given:
            raise _Mistake("write a text, in quotation marks.")
        return given

    def _file(self, given: Any, _place: Place) -> Path:
        return self._folder / Path(self._expanded(self._text(given))).expanduser()

    def _socket(self, given: Any, place: Place) -> Path:
        path = self._file(given, place)
        if len(os.fsencode(path)) > SOCKET_BYTES:
            raise _Mistake(f"the path of a socket has at most {SOCKET_BYTES} bytes. Choose a shorter one.")
        return path

    def _urls(self, given: Any, _place: Place) -> tuple[str, ...]:
        if not isinstance(given, list):
            given = [given]
        if not given:
            raise _Mistake("name at least one URL.")
        urls = tuple(self._url(self._text(each)) for each in given)
        if len({_identity(url) for url in urls}) < len(urls):
            raise _Mistake("a database stands there twice. Each shard is one of its own: remove one.")
        return urls

    def _url(self, given: str) -> str:
        url = self._expanded(given)
        if url in ("sqlite://", "sqlite:///:memory:"):
            raise _Mistake("this is a temporary store, gone when the daemon ends. Name a file: sqlite:///app.db.")
        scheme, slashes, path = url.partition(":///")
        if slashes and scheme.startswith("sqlite") and not path.startswith("file:"):
            path, question, query = path.partition("?")
            url = f"{scheme}:///{self._folder / path}{question}{query}"
        try:
            Database(url).close()
        except ConfigurationError as error:
            # The message may show the URL, and with it the password that was put in.
            problem = str(error).partition(" Nothing was opened.")[0].replace(url, given)
            raise _Mistake(f"{problem} Write sqlite:///file.db, postgresql://… or mariadb://…") from error
        return url

    def _expanded(self, given: str) -> str:
        """With variables of the environment put in; those before an @ escaped, so that a password may have any."""
        user_end = re.match(r"[\w+]+://[^/@]*(?=@)", given)

        def value(found: re.Match[str]) -> str:
            if found[1] not in self._environment:
                raise _Mistake(f"the environment has no variable {found[1]}. Set it where the daemon is started.")
            text = self._environment[found[1]]
            return quote(text, safe="") if user_end and found.end() <= user_end.end() else text

        return _VARIABLE.sub(value, given)

    def _resolver(self, given: Any, _place: Place) -> Resolver:
        text = self._text(given)
        try:
            return resolver_of(str(self._folder / text) if ":" in text else text)
        except click.UsageError as error:
            raise _Mistake(f"{error.message} {_nearest_resolver(text)}".rstrip()) from error

    def _filter(self, given: Any, place: Place) -> Filter | None:
        if not isinstance(given, dict):
            raise _Mistake('write a table, such as { prefix = "fr/" }.')
        before = len(self._mistakes)
        table = _Table(self, place, given, "a filter")
        prefix = table.get("prefix", lambda value, _place: self._text(value), "")
        fields = table.get("fields", _fields)
        predicate = table.get("predicate", self._predicate)
        version = table.get("version", lambda value, _place: self._text(value), "")
        table.end()
        if len(self._mistakes) > before:
            return None
        try:
            found = Filter(prefix=prefix, fields=fields, predicate=predicate, version=version)
            assert found.identity
        except ConfigurationError as error:
            raise _Mistake(str(error)) from error
        return found

    def _predicate(self, given: Any, _place: Place) -> Callable[[str, Any], bool]:
        try:
            return loaded(str(self._folder / self._text(given)), ("key", "value"))  # type: ignore[no-any-return]
        except click.UsageError as error:
            raise _Mistake(error.message) from error


# --- values that stand for themselves --------------------------------------------------------------------------------

_EXAMPLES = {
    "name": 'name = "notes"',
    "source": 'source = "sqlite:///app.db"',
    "target": 'target = "postgresql://host/app"',
}


def seconds_of(given: str) -> float:
    """A duration as people write it: 500ms, 90s, 5m, 6h, 1d.

    Raises:
        ValueError: it is none.
    """
    found = _DURATION.fullmatch(given.strip())
    if found is None or not float(found[1]):
        raise ValueError(f"{given!r} is no duration: write a number above zero and a unit, such as 500ms, 90s, 6h, 1d")
    return float(found[1]) * _SECONDS[found[2]]


def _duration(given: Any, _place: Place) -> float:
    try:
        return seconds_of(given)
    except (ValueError, AttributeError):
        raise _Mistake('write a duration with its unit, such as "500ms", "90s", "5m", "6h" or "1d".') from None


def _duration_or_never(given: Any, place: Place) -> float | None:
    return None if given == "never" else _duration(given, place)


def _name(given: Any, _place: Place) -> str:
    if not isinstance(given, str) or not re.fullmatch(r"[\w.:-]{1,100}", given):
        raise _Mistake("a name has letters, digits and any of . : _ - only; 100 at most.")
    return given


def _truth(given: Any, _place: Place) -> bool:
    if not isinstance(given, bool):
        raise _Mistake("write true or false, without quotation marks.")
    return given


def _between(least: int, most: int) -> Callable[[Any, Place], int]:
    def read(given: Any, _place: Place) -> int:
        if type(given) is not int or not least <= given <= most:
            raise _Mistake(f"write a whole number from {least} to {most}.")
        return given

    return read


def _one_of(*words: str) -> Callable[[Any, Place], str]:
    def read(given: Any, _place: Place) -> str:
        if given not in words:
            raise _Mistake(f"it is one of {', '.join(words)}.")
        return str(given)

    return read


def _address(given: Any, _place: Place) -> tuple[str, int]:
    host, _, port = given.rpartition(":") if isinstance(given, str) else ("", "", str(given))
    if isinstance(given, bool) or not port.isdecimal() or int(port) > 65535:
        raise _Mistake('write a port, which is then open to this machine only, or "HOST:PORT".')
    return host.strip("[]") or "127.0.0.1", int(port)


def _collections(given: Any, _place: Place) -> tuple[str, ...]:
    if not isinstance(given, list) or not given:
        raise _Mistake("write a list of names, or leave it out for all collections.")
    for each in given:
        try:
            check_key(each)
        except (InvalidKey, TypeError) as error:
            raise _Mistake(f"{each!r} is no name of a collection: {error}") from error
        if given.count(each) > 1:
            raise _Mistake(f"{each!r} stands there twice. Remove one.")
    return tuple(given)


def _history(given: Any, _place: Place) -> History:
    if isinstance(given, str) and given in _HISTORIES:
        return _HISTORIES[given]
    try:
        # An offset date-time, or a date, may stand in the file without quotation marks.
        return moment_us(given if isinstance(given, str) else given.isoformat())
    except (ValueError, TypeError, AttributeError):
        raise _Mistake('write "heads", "all", or since when, such as 2026-11-01T00:00:00Z.') from None


def _fields(given: Any, _place: Place) -> dict[str, Any]:
    if not isinstance(given, dict) or not given:
        raise _Mistake('write a table of values, or lists of them, by path: { "author.country" = ["FR", "BE"] }.')
    return given


def _ends(each: Replication) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The databases at both ends, by what tells them apart: no user, no driver, one path for each file."""
    source, target = (tuple(sorted(map(_identity, urls))) for urls in (each.source, each.target))
    return source, target


def _identity(url: str) -> str:
    database = Database(url)
    database.close()
    if database.path is not None:
        return os.path.realpath(database.path)
    return f"{database.dialect.name}://{database.url.host or ''}:{database.url.port or ''}/{database.url.database}"


def shown(urls: Sequence[str]) -> str:
    """URLs for people, without passwords."""
    names = []
    for url in urls:
        database = Database(url)
        database.close()
        names.append(database.name)
    return " ".join(names)


def _overlap(one: Replication, other: Replication) -> bool:
    if one.collections is None or other.collections is None:
        return True
    return bool(set(one.collections) & set(other.collections))


def _nearest(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else f"It has {', '.join(known)}."


def _nearest_resolver(given: str) -> str:
    from difflib import get_close_matches

    near = get_close_matches(given, ("keep", "winner", "last_write", "json3"), n=1, cutoff=0.6)
    return f"Did you mean {near[0]!r}?" if near else ""


def _shown(value: Any) -> str:
    """A value as the file has it, or nearly."""
    if isinstance(value, dict):
        return "{…}"
    shown = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return shown if len(shown) <= 80 else f"{shown[:79]}…"
