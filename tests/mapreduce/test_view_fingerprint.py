"""Fingerprints: the same for what does the same by the same text, in every process; another one after each change."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mapreduce import Count, Sum, TopK
from vstore import ConfigurationError
from vstore.functions import fingerprint


def made(text: str, **named: Any) -> Callable[..., Any]:
    """The function `f` of a text of Python."""
    namespace: dict[str, Any] = {"__name__": "program", **named}
    exec(text, namespace)
    return namespace["f"]  # type: ignore[no-any-return]


PLAIN = "def f(key, value):\n    yield value['a'], 1"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (PLAIN, "\n\n\n" + PLAIN),
        (PLAIN, "def f(key, value):\n    'What it does.'\n    # and why\n    yield value['a'], 1"),
        (PLAIN, "def other(): pass\n" + PLAIN),
        ("def f(k, v): return v in {'a', 'b', 'c'}", "def f(k, v): return v in {'a', 'b', 'c'}"),
        ("def g(): return f\ndef f(): return g", "def g(): return f\ndef f(): return g"),
    ],
)
def test_what_does_the_same_is_the_same(one: str, other: str) -> None:
    """Places, comments, docstrings and neighbours do not count; recursion comes to an end."""
    assert fingerprint(made(one)) == fingerprint(made(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (PLAIN, PLAIN.replace("'a'", "'b'")),
        (PLAIN, PLAIN.replace("1", "2")),
        (PLAIN, PLAIN.replace("1", "1.0")),
        (PLAIN, PLAIN.replace("1", "True")),
        ("def f(k, v): return k + v", "def f(k, v): return k - v"),
        ("def f(k, v, n=1): return n", "def f(k, v, n=2): return n"),
        ("def f(k, v, *, n=1): return n", "def f(k, v, *, n=2): return n"),
        ("N = 1\ndef f(k, v): return N", "N = 2\ndef f(k, v): return N"),
        ("def g(): return 1\ndef f(k, v): return g()", "def g(): return 2\ndef f(k, v): return g()"),
        ("def f(k, v): return (lambda: 1)()", "def f(k, v): return (lambda: 2)()"),
        (
            "def g(n):\n    def f(k, v): return n\n    return f\nf = g(1)",
            "def g(n):\n    def f(k, v): return n\n    return f\nf = g(2)",
        ),
        (
            "class A:\n    def m(self): return 1\ndef f(k, v): return A().m()",
            "class A:\n    def m(self): return 2\ndef f(k, v): return A().m()",
        ),
        ("class A:\n    n = 1\ndef f(k, v): return A.n", "class A:\n    n = 2\ndef f(k, v): return A.n"),
        ("D = {'a': 1}\ndef f(k, v): return D", "D = {'a': 2}\ndef f(k, v): return D"),
        ("def f(k, v): return v in {'a', 'b'}", "def f(k, v): return v in {'a', 'c'}"),
        ("def f(k, v): return v.a", "def f(k, v): return v.b"),
    ],
)
def test_every_change_counts(one: str, other: str) -> None:
    """In the function, in what it calls, closes over, or finds in its module."""
    assert fingerprint(made(one)) != fingerprint(made(other))


def test_reducers_are_told_apart_by_their_settings() -> None:
    """By class and fields."""
    values = [Sum(), Count(), TopK(2), TopK(3), None, 1, "1"]

    assert len({fingerprint(value) for value in values}) == len(values)
    assert fingerprint(TopK(2)) == fingerprint(TopK(2))


def test_objects_count_by_what_pickle_would_keep() -> None:
    """A compiled expression, a partial call, a path, a bound method."""
    assert fingerprint(re.compile("a")) == fingerprint(re.compile("a")) != fingerprint(re.compile("b"))
    assert fingerprint(functools.partial(int, base=2)) != fingerprint(functools.partial(int, base=3))
    assert fingerprint(Path("a")) != fingerprint(Path("b"))
    assert fingerprint("a".upper) == fingerprint("a".upper)


def test_what_has_no_lasting_form_is_refused_and_a_version_is_the_cure() -> None:
    """A lock is another one each time."""
    with pytest.raises(ConfigurationError, match="version="):
        fingerprint(made("def f(k, v): return LOCK", LOCK=threading.Lock()))


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    """Whatever the seed of its hashes is."""
    program = (
        "import re\nfrom mapreduce import Sum, view\nfrom vstore.functions import fingerprint\n"
        "WORDS = {'a', 'b', 'c', 'd'}\nPATTERN = re.compile('x+')\n"
        "def words(key, value):\n    for w in PATTERN.findall(value):\n        if w in WORDS | {'y', 'z'}: yield w, 1\n"
        "print(fingerprint(words, Sum()))"
    )
    path = tmp_path / "program.py"
    path.write_text(program)

    found = {
        subprocess.run(
            [sys.executable, str(path)], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert len(found) == 1
