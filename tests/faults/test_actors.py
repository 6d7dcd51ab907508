"""An actor goes on only with proof from outside the database, so that no dot ever names two writes."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

import vstore
from tests.faults.writer import dots
from tests.lives import LIVES
from vstore import InvalidToken, Store
from vstore.sql import statements as sql

SEED = 20261121


class Witness:
    """Remembers what every dot was used for, at every store it ever looked at."""

    def __init__(self) -> None:
        self._used: dict[tuple[str, int], tuple[str, str]] = {}

    def look(self, store: Store) -> None:
        """Fails if a dot here names another write than it did anywhere before."""
        for dot, write in dots(store):
            assert self._used.setdefault(dot, write) == write, f"{dot} names two writes"


def actor(store: Store) -> str:
    """The actor of a store with one collection of one partition."""
    [row] = store.shards[0].database.ask(sql.ALL_PARTITIONS)
    return str(row[3])


def write(url: str, value: Any, witness: Witness | None = None, **settings: Any) -> str:
    """Opens the store, makes the collection if there is none, writes one document; the actor that wrote it."""
    with vstore.open(url, **settings) as store:
        posts = store["posts"] if "posts" in store else store.create("posts", partitions=1)
        posts[f"key-{value}"] = value
        if witness is not None:
            witness.look(store)
        return actor(store)


def write_and_wait(url: str, value: Any, settings: dict[str, Any], told: Any) -> None:
    """In a process of its own: writes, tells, and stays."""
    store = vstore.open(url, **settings)
    store["posts"][f"key-{value}"] = value
    told.send(actor(store))
    told.recv()


def write_and_die(url: str, value: Any, **settings: Any) -> str:
    """Writes in a process that is killed as soon as its write is acknowledged; its actor."""
    told, theirs = LIVES.Pipe()
    settings = {"state": os.environ["VSTORE_STATE"], **settings}
    process = LIVES.Process(target=write_and_wait, args=(url, value, settings, theirs))
    process.start()
    wrote = str(told.recv())
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    told.close()
    theirs.close()
    return wrote


def forget_log(file: Path) -> None:
    """Deletes what belongs to the database as it was: whoever restores a file without doing so has two in one."""
    for end in ("-wal", "-shm"):
        Path(f"{file}{end}").unlink(missing_ok=True)


def set_back(file: Path, backup: Path) -> None:
    """Restores a backup in place: the file keeps its inode, as with cp."""
    forget_log(file)
    inode = file.stat().st_ino
    shutil.copyfile(backup, file)
    assert file.stat().st_ino == inode


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A closed SQLite store with one document."""
    write(f"sqlite:///{tmp_path / 'original.db'}", 1)
    return tmp_path / "original.db"


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_a_clean_restart_goes_on_with_the_actor(tmp_path: Path, durability: str) -> None:
    """Written, closed, opened again: the same actor and the same feed."""
    url = f"sqlite:///{tmp_path / 'posts.db'}"
    first = write(url, 1, durability=durability)
    with vstore.open(url) as store:
        feed = store["posts"].changes()
        assert [change.key for change in feed] == ["key-1"]

    second = write(url, 2, durability=durability)

    assert second == first
    with vstore.open(url) as store:
        assert [change.key for change in store["posts"].changes(feed.since)] == ["key-2"]


def test_a_copied_file_becomes_somebody_else_and_the_original_does_not(file: Path) -> None:
    """Original and copy are both written; a token of the original is refused at the copy."""
    witness = Witness()
    copy = file.with_name("copy.db")
    shutil.copy(file, copy)
    with vstore.open(f"sqlite:///{file}") as store:
        original = actor(store)
        feed = store["posts"].changes()
        list(feed)

    at_copy = write(f"sqlite:///{copy}", "copy", witness)
    at_original = write(f"sqlite:///{file}", "original", witness)
    again = write(f"sqlite:///{copy}", "copy 2", witness)

    assert at_original == original
    assert again == at_copy != original
    with vstore.open(f"sqlite:///{file}") as store:
        assert [change.key for change in store["posts"].changes(feed.since)] == ["key-original"]
    with vstore.open(f"sqlite:///{copy}") as store, pytest.raises(InvalidToken, match="another feed"):
        store["posts"].changes(feed.since)


@pytest.mark.parametrize("died", [False, True], ids=["closed", "killed"])
@pytest.mark.parametrize("how", ["cp", "mv"])
def test_a_restored_backup_becomes_somebody_else(file: Path, how: str, died: bool) -> None:
    """A backup is taken, more is written, the backup comes back in place: cp over the file, or mv to its name."""
    witness = Witness()
    url = f"sqlite:///{file}"
    backup = file.with_name("backup.db")
    shutil.copy(file, backup)
    lost = write_and_die(url, "lost") if died else write(url, "lost", witness)
    with vstore.open(url) as store:
        witness.look(store)
        feed = store["posts"].changes()
        list(feed)

    if how == "cp":
        set_back(file, backup)
    else:
        forget_log(file)
        backup.rename(file)
    with vstore.open(url) as store, pytest.raises(InvalidToken, match="set back to an older state"):
        store["posts"].changes(feed.since)
    after = write(url, "other", witness)
    again = write(url, "more", witness)

    assert again == after != lost
    with vstore.open(url) as store, pytest.raises(InvalidToken, match="another feed"):
        store["posts"].changes(feed.since)
    with vstore.open(url) as store:
        assert list(store.check()) == []


def test_without_its_proofs_every_actor_is_a_new_one(file: Path, tmp_path: Path) -> None:
    """The state directory is deleted between two sessions."""
    url = f"sqlite:///{file}"
    first = write(url, 2)

    shutil.rmtree(tmp_path / "state")

    assert write(url, 3) != first


def test_where_no_proof_can_be_kept_each_session_is_somebody_else(file: Path, tmp_path: Path) -> None:
    """The state directory is a file: each session gets a new actor, once."""
    nowhere = tmp_path / "nowhere"
    nowhere.write_text("not a directory")
    witness = Witness()
    url = f"sqlite:///{file}"

    with vstore.open(url, state=nowhere) as store:
        store["posts"]["a"] = 1
        first = actor(store)
        store["posts"]["b"] = 2
        assert actor(store) == first
    second = write(url, 3, witness, state=nowhere)
    third = write(url, 4, witness, state=nowhere)

    assert len({first, second, third}) == 3


def test_a_kill_leaves_the_actor_when_every_commit_was_durable(file: Path) -> None:
    """Under full durability what is noted agrees with what is stored, so the next session goes on."""
    url = f"sqlite:///{file}"

    died = write_and_die(url, 2)

    assert write(url, 3) == died


@pytest.mark.parametrize("then", ["full", "relaxed"])
def test_a_kill_under_relaxed_durability_makes_new_actors(file: Path, then: str) -> None:
    """The end was unclean and commits may be lost with the machine: whoever opens next does not trust the notes."""
    url = f"sqlite:///{file}"

    died = write_and_die(url, 2, durability="relaxed")
    after = write(url, 3, durability=then)

    assert after != died
    assert write(url, 4, durability=then) == after


def test_a_second_process_and_a_fork_share_the_actor(file: Path) -> None:
    """Three processes write the same file in turn, all opened at once."""
    url = f"sqlite:///{file}"
    with vstore.open(url) as store:
        store["posts"]["mine"] = 1
        ours = actor(store)
        theirs = write_and_die(url, "theirs")
        store["posts"]["mine"] = 2
        child = os.fork()
        if child == 0:
            store["posts"]["forked"] = 3
            os._exit(0 if actor(store) == ours else 1)
        _, status = os.waitpid(child, 0)
        store["posts"]["mine"] = 4

        assert theirs == ours == actor(store)
        assert status == 0
        assert store["posts"]["forked"] == 3


def test_a_forked_child_outlives_its_parents_session(file: Path) -> None:
    """The parent closes while its child goes on under relaxed durability; the child is killed: an unclean end."""
    url = f"sqlite:///{file}"
    with vstore.open(url, durability="relaxed") as store:
        store["posts"]["mine"] = 1
        ready, tell = os.pipe()
        child = os.fork()
        if child == 0:
            store["posts"]["forked"] = 1
            os.write(tell, b".")
            signal.pause()
        os.read(ready, 1)
        before = actor(store)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ready)
    os.close(tell)

    after = write(url, 2, durability="relaxed")

    assert after != before


@pytest.mark.new_database
@pytest.mark.parametrize(
    "kind", [pytest.param("postgresql", marks=pytest.mark.postgres), pytest.param("mariadb", marks=pytest.mark.mariadb)]
)
def test_a_dump_restored_elsewhere_becomes_somebody_else(kind: str, fresh_url: Callable[[str], str]) -> None:
    """A database is dumped into another of the same server, and both are written; then once more over itself."""
    witness = Witness()
    original, other = fresh_url(kind), fresh_url(kind)
    first = write(original, 1, witness)
    with vstore.open(original) as store:
        feed = store["posts"].changes()
        list(feed)

    dumped = dump(original)
    restore(other, dumped)
    at_other = write(other, "other", witness)
    at_original = write(original, "original", witness)
    restore(original, dumped)
    set_back_to_first = write(original, "set back", witness)

    assert at_original == first
    assert len({first, at_other, set_back_to_first}) == 3
    for url in (original, other):
        with vstore.open(url) as store, pytest.raises(InvalidToken, match="another feed"):
            store["posts"].changes(feed.since)


def dump(url: str) -> bytes:
    """The whole database as SQL, by the server's own tool, made to replace what is there."""
    parts = make_url(url)
    if parts.get_backend_name() == "postgresql":
        command = ["pg_dump", "--clean", "--if-exists", "--dbname", _plain(url)]
    else:
        command = ["mariadb-dump", *_account(url), str(parts.database)]
    return _run(command, None)


def restore(url: str, dumped: bytes) -> None:
    """Loads a dump."""
    parts = make_url(url)
    if parts.get_backend_name() == "postgresql":
        _run(["psql", "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", _plain(url)], dumped)
    else:
        _run(["mariadb", *_account(url), str(parts.database)], dumped)


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def _account(url: str) -> list[str]:
    parts = make_url(url)
    password = [f"--password={parts.password}"] if parts.password else []
    return ["--host", parts.host or "", "--port", str(parts.port or 3306), "--user", parts.username or "", *password]


def _run(command: list[str], given: bytes | None) -> bytes:
    if shutil.which(command[0]) is None:
        message = f"{command[0]} is not installed, so no dump can be made"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    return subprocess.run(command, input=given, capture_output=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("seed", range(SEED, SEED + 6))
def test_no_dot_is_ever_used_for_two_writes(tmp_path: Path, seed: int) -> None:
    """Forty random steps over a growing family of files: writes, copies, backups, restores, kills, lost proofs."""
    print(f"seed {seed}")
    chance = random.Random(seed)
    witness = Witness()
    files = [tmp_path / "0.db"]
    backups: list[tuple[Path, Path]] = []
    write(f"sqlite:///{files[0]}", 0, witness)

    for step in range(1, 41):
        file = chance.choice(files)
        url = f"sqlite:///{file}"
        settings = {"durability": chance.choice(["full", "relaxed"])}
        kind = chance.random()
        if kind < 0.5:
            write(url, chance.randrange(5), witness, **settings)
        elif kind < 0.55:
            write_and_die(url, step, **settings)
        elif kind < 0.65 and len(files) < 4:
            files.append(tmp_path / f"{len(files)}.db")
            shutil.copy(file, files[-1])
        elif kind < 0.8:
            with vstore.open(url):  # so that nothing is left in the log
                pass
            backups.append((file, tmp_path / f"backup-{step}.db"))
            shutil.copy(file, backups[-1][1])
        elif kind < 0.97 and backups:
            set_back(*chance.choice(backups))
        else:
            shutil.rmtree(tmp_path / "state", ignore_errors=True)

    for file in files:
        write(f"sqlite:///{file}", "last", witness)
        with vstore.open(f"sqlite:///{file}") as store:
            assert list(store.check()) == []
