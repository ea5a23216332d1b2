"""What a queue accepts comes back equal; all else is refused with the path, and nothing is shown."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import subprocess
import sys
import typing
from collections import Counter, OrderedDict
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import attrs
import msgspec
import orjson
import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duraq.errors import InvalidInput, InvalidOption, InvalidPayload, PayloadTooLarge, PayloadUndecodable
from duraq.journal import record
from duraq.operations import Complete
from duraq.payload import MAX_DEPTH, PayloadCodec

T = typing.TypeVar("T")

MEGABYTE = 2**20
SOME_ID = UUID("0198c0de-0000-7000-8000-00000000d00d")
# A busy machine is no failure.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def codec(payload_type: Any = None, max_bytes: int = MEGABYTE) -> PayloadCodec[Any]:
    return PayloadCodec(payload_type, max_bytes)


def refused(value: Any, payload_type: Any = None) -> InvalidPayload:
    with pytest.raises(InvalidPayload) as caught:
        codec(payload_type).encode(value)
    return caught.value


def nested(depth: int, *, empty: bool = False) -> list[Any]:
    value: list[Any] = [] if empty else [1]
    for _ in range(depth - 1):
        value = [value]
    return value


def same_json(one: Any, other: Any) -> bool:
    """Equal, and of the same JSON type all the way down: 1, 1.0 and True are told apart."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return list(one) == list(other) and all(same_json(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_json, one, other))
    return bool(one == other) and (one != 0 or math.copysign(1, one) == math.copysign(1, other))


# -- untyped -------------------------------------------------------------------------------------------------

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | text
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=30
)
anything = st.recursive(
    scalars
    | st.floats()
    | st.text(st.characters())
    | st.integers()
    | st.binary()
    | st.uuids()
    | st.datetimes()
    | st.decimals(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text(st.characters()) | st.integers() | st.none(), inner)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers())
    ),
    max_leaves=10,
)


@unhurried
@given(json_values)
def test_json_values_come_back(value: Any) -> None:
    """Every JSON value comes back equal, of the same types and with its keys in the same order."""
    assert same_json(codec().decode(codec().encode(value)), value)


@unhurried
@given(json_values)
def test_a_payload_is_one_line_of_json_for_everyone(value: Any) -> None:
    """What is written is one line of UTF-8 that the standard library reads as the same value."""
    payload = codec().encode(value)
    assert b"\n" not in payload
    assert b"\r" not in payload
    assert same_json(json.loads(payload.decode()), value)


@unhurried
@given(anything)
def test_nothing_is_changed_in_silence(value: Any) -> None:
    """Whatever is given either comes back equal or is refused as an invalid payload."""
    try:
        payload = codec().encode(value)
    except InvalidPayload:
        return
    assert codec().decode(payload) == value


class Colour(enum.Enum):
    RED = "red"


class Status(enum.StrEnum):
    ACTIVE = "active"


class Level(enum.IntEnum):
    HIGH = 3


class Exact(float):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Person(pydantic.BaseModel):
    name: str
    age: int | None = None


class Numbers(pydantic.RootModel[list[int]]):
    pass


class Frame(pydantic.BaseModel, typing.Generic[T]):
    inner: T


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (math.nan, "$"),
        ({"price": math.inf}, "$.price"),
        ({"items": [{"price": 1}, {"price": 2}, {"a": 1, "price": -math.inf}]}, "$.items[2].price"),
        ([None, math.nan], "$[1]"),
        ("\ud800", "$"),
        (["ok", "\udfff tail"], "$[1]"),
        ({"a": {"\ud800": 1}}, r"$.a['\ud800']"),
        (2**64, "$"),
        ({"n": -(2**63) - 1}, "$.n"),
        ({"n": 10**5000}, "$.n"),
        ({1: "a"}, "$"),
        ({"a": {None: 1}}, "$.a"),
        ({"a": {Status.ACTIVE: 1}}, "$.a"),
        ((1, 2), "$"),
        ({"a": [1, (2,)]}, "$.a[1]"),
        ({"a": {1, 2}}, "$.a"),
        ({"a": frozenset()}, "$.a"),
        ({"a": b"bytes"}, "$.a"),
        ({"a": bytearray()}, "$.a"),
        ({"a": datetime(2026, 1, 1, tzinfo=UTC)}, "$.a"),
        ({"a": date(2026, 1, 1)}, "$.a"),
        ({"a": time(12)}, "$.a"),
        ({"a": timedelta(1)}, "$.a"),
        ({"a": SOME_ID}, "$.a"),
        ({"a": Decimal(1)}, "$.a"),
        ({"a": 1j}, "$.a"),
        ({"a": Colour.RED}, "$.a"),
        ({"a": Exact(1.5)}, "$.a"),
        ({"a": Point(1)}, "$.a"),
        ({"a": Person(name="Ada")}, "$.a"),
        ({"a": object()}, "$.a"),
        ({"a": int}, "$.a"),
        ({"a": orjson.Fragment(b"1\n")}, "$.a"),
        ({"a": orjson.Fragment(b"}{")}, "$.a"),
        ({"two words": math.nan}, "$['two words']"),
        ({"": math.nan}, "$['']"),
    ],
)
def test_other_values_are_refused_with_the_path(value: Any, path: str) -> None:
    """What JSON would lose or cannot hold is refused, and the error says where it is."""
    assert refused(value).path == path
    assert f"`{path}`" in str(refused(value))


def test_a_cycle_is_refused() -> None:
    """A value that contains itself is refused, at the place where it refers back."""
    inner: dict[str, Any] = {"a": []}
    inner["a"].append({"again": inner})
    assert refused({"top": inner}).path == "$.top.a[0].again"


def test_a_value_used_twice_is_no_cycle() -> None:
    """One object in two places comes back as two equal ones."""
    shared = {"a": [1]}
    assert codec().decode(codec().encode([shared, shared])) == [shared, shared]


@pytest.mark.parametrize("empty", [True, False])
@pytest.mark.parametrize("payload_type", [None, list])
def test_nesting_to_the_limit_and_no_deeper(payload_type: Any, empty: bool) -> None:
    """The deepest value allowed comes back; one level more is refused, by encode and by decode."""
    deepest, deeper = nested(MAX_DEPTH, empty=empty), nested(MAX_DEPTH + 1, empty=empty)
    queue = codec(payload_type)
    assert queue.decode(queue.encode(deepest)) == deepest
    assert "deeper than 128" in str(refused(deeper, payload_type))
    with pytest.raises(PayloadUndecodable, match="deeper than 128"):
        queue.decode(orjson.dumps(deeper))


@pytest.mark.parametrize("depth", [200, 300, 5000])
def test_far_too_deep_is_refused_too(depth: int) -> None:
    """Beyond what the JSON library or the interpreter can follow, the refusal is the same."""
    assert "deeper than 128" in str(refused({"a": nested(depth)}))


@pytest.mark.parametrize(
    "value", ["[" * 500, ["[{" * 200], {"a": [[]] * 500}, [{}] * 500, [{"k": "]}" * 200}]]
)
def test_many_brackets_are_not_deep(value: Any) -> None:
    """Brackets within strings, or side by side, do not count as nesting."""
    assert codec().decode(codec().encode(value)) == value


class Loud(dict):  # type: ignore[type-arg]
    """A dict that claims to be equal to everything."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


class Angry(enum.Enum):
    ONE = 1

    __hash__ = enum.Enum.__hash__

    def __eq__(self, other: object) -> bool:
        raise OSError("no comparing")


@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(a=1),
        Counter("hello"),
        {"status": Status.ACTIVE},
        {"level": Level.HIGH},
        [type("Text", (str,), {})("a")],
        {"a": type("Count", (int,), {})(5)},
        Loud(a=1),
    ],
)
def test_subclasses_come_back_as_the_equal_plain_value(value: Any) -> None:
    """A subclass of a JSON type is accepted if the plain value that comes back is equal by its own ``==``."""
    assert codec().decode(codec().encode(value)) == value


def test_a_comparison_that_raises_is_a_refusal() -> None:
    """If the payload's own ``==`` raises, the payload is refused."""
    assert refused({"a": [Angry.ONE]}).path == "$.a[0]"


def test_a_scalar_and_the_empty_payloads_come_back() -> None:
    """Nothing needs to be wrapped: null, numbers and empty values are payloads as they are."""
    for value in (
        None,
        True,
        False,
        0,
        -0.0,
        1.5,
        5e-324,
        "",
        [],
        {},
        2**64 - 1,
        -(2**63),
        "null",
        {"a": "null"},
    ):
        assert same_json(codec().decode(codec().encode(value)), value)


def test_the_limit_names_both_numbers() -> None:
    """A payload of the largest size is accepted; one byte more is refused, and both sizes are told."""
    assert codec(max_bytes=12).encode("x" * 10) == b'"xxxxxxxxxx"'
    with pytest.raises(
        PayloadTooLarge, match=r"13 bytes.*limit is 12; FileStorage\(max_payload_bytes=\.\.\.\).*MiB$"
    ):
        codec(max_bytes=12).encode("x" * 11)
    with pytest.raises(PayloadTooLarge, match=r"limit is 12"):
        codec(Point, max_bytes=12).encode(Point(1))


@pytest.mark.parametrize(
    ("payload_type", "value"),
    [
        (None, {"secret" * 1000: math.nan}),
        (None, {"k": "hunter2\ud800" * 1000}),
        (None, [{"hunter2"}]),
        (str, 5),
        (Point, {"x": "hunter2"}),
        (Point, Point("hunter2" * 1000)),
        (dict[str, int], {"a": "hunter2"}),
        (Colour, "hunter2"),
        (Person, Person.model_construct(name="Ada", age="hunter2")),
        (list[Person], [Person.model_construct(name="Ada", age="hunter2")]),
        (None, {"\x1b[2J\n" * 5: math.nan}),
    ],
)
def test_a_refusal_does_not_show_the_payload(payload_type: Any, value: Any) -> None:
    """An error's text is short, printable and free of the payload's values, and nothing is chained to it."""
    error = refused(value, payload_type)
    assert "hunter2" not in str(error)
    assert len(str(error)) < 1000
    assert str(error).isprintable()
    assert error.__cause__ is None
    assert error.__context__ is None


def test_refusals_are_invalid_input() -> None:
    """A caller can catch a refusal as a ValueError."""
    assert isinstance(refused(math.nan), InvalidInput)
    assert isinstance(refused(math.nan), ValueError)


# -- plain payload types -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload_type", "good", "bad"),
    [
        (str, ["", "a"], [1, None, b"a", ["a"]]),
        (int, [0, 2**63], [True, 1.0, "1", None]),
        (float, [0.5, 1], [True, "1.0", None]),
        (bool, [True, False], [1, 0, None, "true"]),
        (list, [[], [1, "a"]], [{}, "a", (1,), None]),
        (dict, [{}, {"a": None}], [[], "a", None]),
    ],
)
def test_plain_types_are_checked_both_ways(payload_type: Any, good: list[Any], bad: list[Any]) -> None:
    """A queue of a plain type takes and gives that type only; True is no int."""
    queue = codec(payload_type)
    for value in good:
        assert same_json(queue.decode(queue.encode(value)), value)
    for value in bad:
        assert f"expected {payload_type.__name__}" in str(refused(value, payload_type))
    for value in bad:
        if not isinstance(value, bytes | tuple):
            with pytest.raises(PayloadUndecodable):
                queue.decode(orjson.dumps(value))


@pytest.mark.parametrize("payload_type", [Any, object])
def test_any_means_untyped(payload_type: Any) -> None:
    """Any and object accept what an untyped queue accepts, and no more."""
    assert codec(payload_type).encode({"a": [1]}) == b'{"a":[1]}'
    assert refused({"a": (1,)}, payload_type).path == "$.a"


def test_msgspec_is_imported_only_for_schemas() -> None:
    """Untyped queues, and those of plain types, cost no import of msgspec or pydantic."""
    program = (
        "import sys; from duraq.payload import PayloadCodec\n"
        "for t in (None, str, int, float, bool, list, dict): PayloadCodec(t, 100)\n"
        "PayloadCodec(dict, 100).encode({'a': [1]})\n"
        "sys.exit(bool({'msgspec', 'pydantic', 'attrs'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# -- schemas -------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Line:
    what: str
    price: Decimal
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Order:
    id: UUID
    at: datetime
    colour: Colour
    level: Level
    lines: list[Line]
    body: bytes
    share: float
    count: int
    gift: bool
    by_name: dict[str, Line]
    within: timedelta
    day: date
    pair: tuple[int, str]
    seen: set[int]
    parent: Order | None = None
    _secret: str = ""


small_times = st.datetimes(
    timezones=st.none()
    | st.just(UTC)
    | st.builds(timezone, st.integers(-14 * 60, 14 * 60).map(lambda minutes: timedelta(minutes=minutes)))
)
lines = st.builds(Line, text, st.decimals(allow_nan=False, allow_infinity=False), st.lists(text, max_size=3))
floats = st.floats(allow_nan=False, allow_infinity=False)
order_fields = {
    "id": st.uuids(),
    "at": small_times,
    "colour": st.sampled_from(Colour),
    "level": st.sampled_from(Level),
    "lines": st.lists(lines, max_size=3),
    "body": st.binary(),
    "share": floats,
    "count": st.integers(-(2**63), 2**64 - 1),
    "gift": st.booleans(),
    "by_name": st.dictionaries(text, lines, max_size=3),
    "within": st.timedeltas(),
    "day": st.dates(),
    "pair": st.tuples(st.integers(-5, 5), text),
    "seen": st.sets(st.integers(-5, 5), max_size=3),
    "_secret": text,
}
orders = st.builds(Order, **order_fields, parent=st.none() | st.builds(Order, **order_fields))
order_codec = codec(Order)


@unhurried
@given(orders)
def test_dataclasses_come_back_equal(order: Order) -> None:
    """A dataclass of all kinds of fields, private and nested ones too, comes back equal, on one line."""
    payload = order_codec.encode(order)
    assert b"\n" not in payload
    assert json.loads(payload)["id"] == str(order.id)
    assert order_codec.decode(payload) == order


@unhurried
@given(order=orders, field=st.sampled_from(sorted({*order_fields} - {"at"})), wrong=anything)
def test_wrong_fields_never_change_in_silence(order: Order, field: str, wrong: Any) -> None:
    """Whatever is put in a field of another type either comes back equal or is refused."""
    setattr(order, field, wrong)
    try:
        payload = order_codec.encode(order)
    except InvalidPayload:
        return
    assert order_codec.decode(payload) == order


@attrs.define
class Parcel:
    weight: float
    label: str | None = None


@attrs.define
class Hidden:
    _weight: float = attrs.field(default=1.0, eq=False)


class Address(typing.TypedDict):
    street: str
    number: typing.NotRequired[int]


class Place(typing.NamedTuple):
    x: float
    name: str = "here"


class Record(msgspec.Struct):
    n: int


@dataclasses.dataclass(eq=False)
class Identity:
    x: int
    note: Any = None


@dataclasses.dataclass(slots=True, frozen=True, kw_only=True)
class Frozen:
    _private: int
    made: list[int] = dataclasses.field(default_factory=list, init=False)
    uncompared: int = dataclasses.field(default=0, compare=False)


@dataclasses.dataclass
class Special(Point):
    pass


@dataclasses.dataclass
class Node:
    value: int
    next: Node | None = None


@dataclasses.dataclass
class Loose:
    anything: Any


@dataclasses.dataclass
class Picky:
    name: str

    def __post_init__(self) -> None:
        if self.name == "key":
            raise KeyError(self.name)
        if self.name == "deep":
            raise RecursionError
        if self.name == "value":
            raise ValueError("not that name")


@pytest.mark.parametrize(
    ("payload_type", "value"),
    [
        (Point, Point(1, 2)),
        (Parcel, Parcel(1.5, "a")),
        (Address, {"street": "a"}),
        (Address, {"street": "a", "number": 3}),
        (Place, Place(1.5)),
        (Record, Record(5)),
        (Frozen, Frozen(_private=7, uncompared=9)),
        (Colour, Colour.RED),
        (UUID, SOME_ID),
        (bytes, bytes(range(256))),
        (Decimal, Decimal("1.10")),
        (datetime, datetime(2026, 1, 2, 3, 4, 5, 6)),  # noqa: DTZ001 - a naive one comes back as it is
        (datetime, datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-5, minutes=30)))),
        (date, date(2026, 1, 2)),
        (timedelta, timedelta(days=-3, microseconds=1)),
        (list[Point], [Point(1), Point(2)]),
        (dict[str, Point], {"a": Point(1)}),
        (dict[int, Place], {1: Place(2)}),
        (tuple[int, ...], (1, 2)),
        (Point | None, None),
        (Point | None, Point(1)),
        (int | str, "a"),
        (typing.Literal["a", "b"], "a"),
        (typing.NewType("Name", str), "a"),
        (Person, Person(name="Ada", age=36)),
        (Person, Person(name="Zoë\n")),
        (list[Person], [Person(name="Ada")]),
        (Numbers, Numbers([1, 2])),
        (Frame[int], Frame[int](inner=3)),
        (dict[str, Person | None], {"a": Person(name="Ada"), "b": None}),
        (Point, Point(x=1700000000123456789)),
        (Loose, Loose("1" * 50)),
        (type(None), None),
    ],
)
def test_every_kind_of_type_comes_back(payload_type: Any, value: Any) -> None:
    """Payloads of all supported kinds of types come back equal and of the same class."""
    queue = codec(payload_type)
    back = queue.decode(queue.encode(value))
    assert back == value
    assert type(back) is type(value)
    if isinstance(value, Frozen):
        assert (back._private, back.uncompared) == (7, 9)


@pytest.mark.parametrize(
    ("payload_type", "value", "path"),
    [
        (Point, Point("1"), "$.x"),
        (Point, Point(1.5), "$.x"),
        (Point, Point(True), "$.x"),
        (Point, Point(2**64), "$.x"),
        (Point, Point(-(2**63) - 1), "$.x"),
        (Point, Point(10**400), "$.x"),
        (list[Point], [Point(1), Point(1, None)], "$[1].y"),
        (Place, Place(math.nan), "$[0]"),
        (Parcel, Parcel(math.inf), "$.weight"),
        (Parcel, Parcel(1.0, "\ud800"), "$.label"),
        (float | None, math.nan, "$"),
        (Loose, Loose(math.nan), "$.anything"),
        (Loose, Loose({"a": [1, (2,)]}), "$.anything.a[1]"),
        (Loose, Loose({"a": SOME_ID}), "$.anything.a"),
        (Loose, Loose({1: 2}), "$.anything[1]"),
        (Loose, Loose(1j), "$"),
        (Loose, Loose(Point(1)), "$.anything"),
        (Loose, Loose(Person(name="Ada")), "$.anything"),
        (Address, {"street": "a", "extra": 1}, "$.extra"),
        (Address, {"number": 1}, "$"),
        (dict[str, int], {"a": "1"}, "$[...]"),
        (dict[str, int], {"\ud800": 1}, r"$['\ud800']"),
        (dict[str, list[int]], {"a": (1,)}, "$.a"),
        (list[Person], [Person(name="Ada"), Person.model_construct(name="Bob", age="x")], "$[1].age"),
        (Person, Person.model_construct(name="Bob", age="7"), "$.age"),
        (Person, Person.model_construct(name="Bob", age=2**64), "$.age"),
        (Person, Person.model_construct(name="\ud800"), "$.name"),
        (set[float], {math.nan}, "$[0]"),
        (Decimal, Decimal("NaN"), "$"),
        (Decimal, Decimal("sNaN"), "$"),
    ],
)
def test_what_a_type_cannot_hold_is_refused_with_the_path(payload_type: Any, value: Any, path: str) -> None:
    """A field that is of the wrong type, or would change, is refused by encode with the path to it."""
    error = refused(value, payload_type)
    assert error.path == path


@pytest.mark.parametrize(
    ("payload_type", "value"),
    [
        (Point, {"x": 1}),
        (Point, None),
        (Point, Special(1)),
        (Point, Parcel(1.0)),
        (Place, (1.5, "here")),
        (Person, {"name": "Ada"}),
        (Colour, "red"),
        (UUID, str(SOME_ID)),
        (bytes, "aGk="),
        (datetime, "2026-01-01T00:00:00Z"),
        (date, datetime(2026, 1, 1, tzinfo=UTC)),
        (Address, Point(1)),
        (list[Point], [{"x": 1}]),
        (list[Point], (Point(1),)),
        (Point | None, {"x": 1}),
        (Person, type("Other", (Person,), {"__module__": __name__})(name="Ada")),
    ],
)
def test_instances_of_another_class_are_refused(payload_type: Any, value: Any) -> None:
    """A value that only looks like one of the queue's type is refused."""
    refused(value, payload_type)


def test_objects_without_an_eq_are_compared_field_by_field() -> None:
    """A class with ``eq=False`` is accepted if all its fields come back equal, else refused."""
    queue = codec(list[Identity])
    (back,) = queue.decode(queue.encode([Identity(1, ["a"])]))
    assert (back.x, back.note) == (1, ["a"])
    assert refused([Identity(1, ("a",))], list[Identity]).path == "$[0].note"


@pytest.mark.parametrize("fold", [0, 1])
def test_the_repeated_hour_of_a_zone_is_an_hour_like_any_other(fold: int) -> None:
    """A datetime in the hour that a zone repeats comes back as the same instant."""
    moment = datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=ZoneInfo("Europe/Berlin"))
    queue = codec(Loose), codec(datetime), codec(list[datetime])
    assert queue[1].decode(queue[1].encode(moment)).timestamp() == moment.timestamp()
    assert queue[2].decode(queue[2].encode([moment]))[0].timestamp() == moment.timestamp()
    refused(Loose(moment), Loose)


def test_an_offset_that_cannot_be_written_is_refused() -> None:
    """A datetime whose zone has an offset with seconds would come back as another instant."""
    refused(datetime(1890, 1, 1, tzinfo=ZoneInfo("Europe/Berlin")), datetime)


def test_typed_cycles_and_depths_are_refused() -> None:
    """An object that refers back to itself, or a chain that is too long, is refused."""
    node = Node(1)
    node.next = Node(2, node)
    assert refused(node, Node).path == "$.next.next"
    chain: Node | None = None
    for number in range(MAX_DEPTH):
        chain = Node(number, chain)
    queue = codec(Node)
    assert queue.decode(queue.encode(chain)) == chain
    assert "deeper than 128" in str(refused(Node(0, chain), Node))


@pytest.mark.parametrize(
    "payload_type",
    [
        "Point",
        3,
        [int],
        Point | Parcel,
        Person | int,
        complex,
        list[object.__class__],
        msgspec.Raw,
        list[msgspec.Raw],
        dict[str, Hidden],
        Callable[[int], int],
    ],
    ids=str,
)
def test_types_that_would_lose_something_are_refused_at_once(payload_type: Any) -> None:
    """A queue cannot be made with a type that is unknown, ambiguous, unchecked or written in part."""
    with pytest.raises(InvalidOption, match="payload type"):
        codec(payload_type)


class Settings(pydantic.BaseModel):
    """A model with what makes models hard to bring back."""

    model_config = pydantic.ConfigDict(ser_json_inf_nan="constants")
    size: float = pydantic.Field(1.0, alias="theSize")
    wrapped: pydantic.Json[list[int]] = pydantic.Field(default="[1]", validate_default=True)

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> float:
        return self.size * 2

    def model_dump_json(self, **options: Any) -> str:
        return super().model_dump_json(**(options | {"indent": 2}))


def test_models_with_aliases_and_computed_fields_come_back() -> None:
    """A model with aliases, computed fields, JSON fields and a layout of its own comes back, on one line."""
    settings = Settings(theSize=2.5, wrapped="[1,2]")
    for payload_type, value in ((Settings, settings), (list[Settings], [settings])):
        payload = codec(payload_type).encode(value)
        assert b"\n" not in payload
        assert codec(payload_type).decode(payload) == value


@pytest.mark.parametrize("size", [math.nan, math.inf])
def test_a_model_cannot_smuggle_infinity_in(size: float) -> None:
    """A model that is set to write NaN and Infinity, which no other reader takes for JSON, is refused."""
    assert refused(Settings(theSize=size), Settings).path == "$.size"
    assert refused([Settings(theSize=size)], list[Settings]).path == "$[0].size"


# -- decoding ------------------------------------------------------------------------------------------------

damaged = [
    b"",
    b"{",
    b'{"x":',
    b"nul",
    b"\xff\xfe",
    b'"\xff"',
    b'"\\ud800"',
    b"[1,]",
    b"NaN",
    b"1 2",
    b"\x00" * 20,
]
foreign = [
    b"null",
    b"5",
    b'"text"',
    b"[]",
    b"{}",
    b'{"x":"1"}',
    b"[" * 100_000,
    b'{"x":' * 100_000,
    b"[" * 600 + b"]" * 600,
]
decoders = [str, Point, Place, Address, Person, list[Person], Node, UUID, Colour, datetime, bytes]


@pytest.mark.parametrize("payload", damaged)
@pytest.mark.parametrize("payload_type", [None, *decoders, dict], ids=str)
def test_damaged_payloads_are_undecodable(payload_type: Any, payload: bytes) -> None:
    """Bytes that are no JSON raise PayloadUndecodable, whatever the type."""
    with pytest.raises(PayloadUndecodable):
        codec(payload_type).decode(payload)


@pytest.mark.parametrize("payload", foreign, ids=range(len(foreign)))
@pytest.mark.parametrize("payload_type", decoders, ids=str)
def test_foreign_payloads_are_undecodable(payload_type: Any, payload: bytes) -> None:
    """JSON of another shape raises PayloadUndecodable, however deep it is."""
    if (payload_type, payload) in ((str, b'"text"'), (bytes, b'"text"'), (list[Person], b"[]")):
        return
    with pytest.raises(PayloadUndecodable) as caught:
        codec(payload_type).decode(payload)
    assert len(str(caught.value)) < 1000


@unhurried
@given(
    payload=st.binary() | json_values.map(orjson.dumps),
    payload_type=st.sampled_from([None, *decoders, Order]),
)
def test_decode_raises_one_error_only(payload: bytes, payload_type: Any) -> None:
    """Any bytes at all either decode or raise PayloadUndecodable."""
    try:
        codec(payload_type).decode(payload)
    except PayloadUndecodable as error:
        assert error.__context__ is None  # noqa: PT017 - most payloads raise, some do not


@pytest.mark.parametrize(
    ("payload_type", "payload", "path"),
    [
        (list[Point], b'[{"x":1},{"x":"1"}]', "$[1].x"),
        (Person, b'{"name":"Ada","age":"x"}', "$.age"),
        (list[Person], b'[{"name":"Ada"},{"name":[]}]', "$[1].name"),
        (dict[str, Place], b'{"a":[null]}', "$[...][0]"),
        (str, b"5", "$"),
    ],
)
def test_undecodable_payloads_say_where(payload_type: Any, payload: bytes, path: str) -> None:
    """The error names the path in the payload at which it stops being of the type."""
    with pytest.raises(PayloadUndecodable) as caught:
        codec(payload_type).decode(payload)
    assert f"`{path}`" in str(caught.value)


@pytest.mark.parametrize("name", ["key", "value", "deep"])
def test_errors_of_the_payloads_own_code_are_undecodable(name: str) -> None:
    """Whatever a class raises while it is being made from a payload, the payload does not decode."""
    with pytest.raises(PayloadUndecodable):
        codec(Picky).decode(orjson.dumps({"name": name}))
    picky = Picky("fine")
    picky.name = name
    refused(picky, Picky)


def test_running_out_of_memory_is_not_the_payloads_fault() -> None:
    """A MemoryError goes through, so that no entry is given up for it."""

    @dataclasses.dataclass
    class Huge:
        size: int

        def __post_init__(self) -> None:
            raise MemoryError

    with pytest.raises(MemoryError):
        codec(Huge).decode(b'{"size":1}')


def test_no_memory_to_parse_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """What orjson cannot parse for want of memory is neither undecodable nor damaged, whatever it says."""

    def parse(_: bytes) -> None:
        raise orjson.JSONDecodeError("Not enough memory to allocate buffer for parsing", "", 0)

    line = record.encode(Complete("a", 1), 1, "2026-01-01T12:00:00.000000Z")
    monkeypatch.setattr(orjson, "loads", parse)
    with pytest.raises(MemoryError):
        codec().decode(b"1")
    with pytest.raises(MemoryError):
        record.decode(line)


def test_undecodable_errors_do_not_show_the_payload() -> None:
    """The error that is kept with a dead letter is short and printable, whatever is in the payload."""
    hostile = orjson.dumps({"name": "hunter2", "age": "hunter2 \x1b[2J"})
    with pytest.raises(PayloadUndecodable) as caught:
        codec(Person).decode(hostile)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(PayloadUndecodable) as caught:
        codec(Colour).decode(orjson.dumps("\x1b[2J" * 1000))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_paths() -> None:
    """A path is refused, and told what to be, whether it is a payload, in one, or a payload type."""
    for kind in (Path, dict[str, Path]):
        with pytest.raises(InvalidOption, match="Path is not supported; use str"):
            codec(kind)
    with pytest.raises(InvalidPayload, match=r"Path is not a JSON value: use str - at `\$\.a`"):
        codec().encode({"a": Path("x")})
