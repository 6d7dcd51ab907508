"""Records: the declared parts of a document, however it is decoded."""

from __future__ import annotations

import pickle
from typing import Any

import msgspec
import orjson
import pytest

from mapreduce.query.fields import F, path
from mapreduce.query.meaning import MISSING
from mapreduce.query.records import Fields, Record
from vstore.errors import CodecError

DOCUMENT = {
    "country": "FR",
    "address": {"city": "Nice", "street": "x"},
    "lines": [{"item": "a", "count": 2}, {"item": "b"}, 3, None],
    "get": 1,
    "_id": 2,
    "class": 3,
    "strange name": 4,
    'with "quotes"': 5,
    "más": 6,
}


def decoded(document: Any, *names: Any) -> Any:
    """The record of a document, which is the same from its body and from its value."""
    fields = Fields(names)
    record = fields.decode(orjson.dumps(document))
    assert repr(record) == repr(fields.convert(document))
    assert type(record) is type(fields.convert(document))
    return record


def test_a_record_has_the_declared_parts_and_no_others() -> None:
    record = decoded(DOCUMENT, "country", "absent")

    assert (record.country, record["country"], record.get("country")) == ("FR", "FR", "FR")
    assert record.absent is MISSING
    assert record.get("absent", 7) == 7
    assert ("country" in record, "absent" in record, "address" in record) == (True, False, False)
    assert dict(record) == {"country": "FR"}
    with pytest.raises(KeyError, match="absent"):
        record["absent"]
    with pytest.raises(KeyError, match="not among the declared fields absent, country"):
        record["address"]
    with pytest.raises(KeyError, match="not among the declared fields"):
        record.get("address")
    with pytest.raises(AttributeError, match="'address' is not among the declared fields absent, country"):
        record.address  # noqa: B018


def test_a_record_cannot_be_changed() -> None:
    record = decoded(DOCUMENT, "country")

    with pytest.raises(AttributeError):
        record.country = "DE"


def test_parts_of_parts_are_records_and_what_is_no_object_stays_what_it_is() -> None:
    record = decoded(DOCUMENT, "address.city", "lines[*].count", "country.code")

    assert isinstance(record.address, Record)
    assert dict(record.address) == {"city": "Nice"}
    assert record.country == "FR"
    assert [line.count if isinstance(line, Record) else line for line in record.lines] == [2, MISSING, 3, None]


def test_a_longer_path_is_part_of_a_shorter_one() -> None:
    assert decoded(DOCUMENT, "address", "address.city").address == {"city": "Nice", "street": "x"}
    assert decoded(DOCUMENT, "country", F) == DOCUMENT


@pytest.mark.parametrize("document", [[1, 2], "text", 3, None, True, 1.5, []])
def test_a_document_that_is_no_object_stays_what_it_is(document: Any) -> None:
    assert decoded(document, "country", "a.b") == document


def test_elements_of_a_document_that_is_an_array() -> None:
    assert decoded([{"a": 1, "b": 2}, 3], "[0].a", "[*].a")[0].a == 1


def test_names_that_python_cannot_say_are_reached_with_brackets() -> None:
    """A name that is a method here, a keyword, or no identifier at all."""
    names = ["get", "_id", "class", "strange name", F['with "quotes"'], "más"]

    record = decoded(DOCUMENT, *names)

    assert [record[name] for name in ("get", "_id", "class", "strange name", 'with "quotes"', "más")] == [
        1,
        2,
        3,
        4,
        5,
        6,
    ]
    assert record.más == 6
    assert record.get("get") == 1


@pytest.mark.parametrize(
    "number", [0, -1, 2**63 - 1, -(2**63), 2**64 - 1, -0.0, 0.1, 5e-324, 1.7976931348623157e308, 1e22, 123456789.123]
)
def test_numbers_are_those_that_whole_decoding_gives(number: float) -> None:
    found = decoded({"n": number, "other": [number]}, "n").n

    assert (type(found), repr(found)) == (type(number), repr(number))


def test_a_document_may_nest_as_deeply_as_the_store_allows() -> None:
    inside: Any = 1
    for _ in range(198):
        inside = [inside]

    assert decoded({"deep": inside, "n": 1}, "n").n == 1
    assert decoded({"deep": inside, "n": 1}, "deep").deep == inside


def test_the_last_of_two_members_of_one_name_counts() -> None:
    """orjson never writes this, and reads it so."""
    assert Fields(["n"]).decode(b'{"n":1,"n":2}').n == 2


@pytest.mark.parametrize("body", [b"", b"{", b'{"n":1}}', b'{"n":}'])
def test_a_body_that_is_no_json_raises(body: bytes) -> None:
    for fields in (Fields(["n"]), Fields([F]), Fields([F['"']])):
        with pytest.raises((CodecError, msgspec.DecodeError)):
            fields.decode(body)


def test_records_and_fields_travel() -> None:
    """Their classes are made at run time, in each process again."""
    fields = Fields(["address.city", "lines[*].count"])
    record = fields.decode(orjson.dumps(DOCUMENT))

    assert pickle.loads(pickle.dumps(record)) == record
    assert pickle.loads(pickle.dumps(fields)).decode(orjson.dumps(DOCUMENT)) == record
    assert pickle.loads(pickle.dumps(fields)) == Fields([path("lines[*].count"), "address.city"])
