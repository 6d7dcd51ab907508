"""A disk that fills up: a clear refusal, nothing half written, and work goes on when there is room."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vstore
from vstore import Unavailable

BALLAST = "x" * 60_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no small file system can be mounted here, which needs root: {error}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Fills the file system to the last byte with a file."""
    ballast = disk / "ballast"
    with (
        ballast.open("wb", buffering=0) as file,
        pytest.raises(OSError, check=lambda error: error.errno == errno.ENOSPC),
    ):
        while file.write(b"x" * 4096):
            pass
    return ballast


def test_a_full_disk_refuses_the_batch_and_keeps_what_was_acknowledged(small_disk: Path) -> None:
    """The disk fills up with other files; a small and a large write fail; the files go; both writes succeed."""
    with vstore.open(f"sqlite:///{small_disk / 'full.db'}", state=small_disk / "state") as store:
        posts = store["posts"]
        posts["early"] = {"n": 1}
        token = posts.changes().since
        ballast = fill(small_disk)

        with pytest.raises(Unavailable, match=r"disk is full.*Nothing of this batch was written") as refused:
            posts.put_many({f"batch-{n}": BALLAST for n in range(50)})
        seen = posts.read("early")
        keys = list(posts)
        ballast.unlink()
        posts.put_many({f"later-{n}": BALLAST for n in range(10)})
        posts["early"] = {"n": 2}

        assert not refused.value.outcome_unknown
        assert seen.value == {"n": 1}
        assert keys == ["early"]
        assert len(posts) == 11
        assert [version.value for version in posts.history("early")] == [{"n": 2}, {"n": 1}]
        assert {change.key for change in posts.changes(token)} == set(posts.keys())  # the same feed: no new actors
        assert list(store.check()) == []


def test_a_limit_on_file_sizes_is_a_full_disk(tmp_path: Path) -> None:
    """A process with RLIMIT_FSIZE of 1 MiB writes until it is refused, and says what it was told."""
    program = f"""
import resource, vstore
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with vstore.open("sqlite:///{tmp_path / "limited.db"}") as store:
    for n in range(100):
        try:
            store["posts"][f"key-{{n}}"] = "x" * 60_000
        except vstore.Unavailable as error:
            print(n, "disk is full" in str(error), error.outcome_unknown)
            break
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY

    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ, capture_output=True, text=True, check=True, timeout=60
    )

    acknowledged, named, unknown = done.stdout.split()
    assert (named, unknown) == ("True", "False")
    with vstore.open(f"sqlite:///{tmp_path / 'limited.db'}") as store:
        assert len(store["posts"]) == int(acknowledged) > 0
        store["posts"]["more"] = 1
        assert list(store.check()) == []


def test_a_full_disk_under_the_proofs_stops_nobody(small_disk: Path, tmp_path: Path) -> None:
    """The state directory is on a full disk, the database is not: writes succeed, with new actors at worst."""
    fill(small_disk)

    for n in range(3):
        with vstore.open(f"sqlite:///{tmp_path / 'roomy.db'}", state=small_disk / "state") as store:
            store["posts"].put_many({f"key-{n}-{m}": m for m in range(100)})

    with vstore.open(f"sqlite:///{tmp_path / 'roomy.db'}") as store:
        assert len(store["posts"]) == 300
        assert list(store.check()) == []
