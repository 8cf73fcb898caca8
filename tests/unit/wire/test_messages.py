"""Every message travels whole; nothing else is ever taken for one."""

from typing import Any, get_args, get_origin, get_type_hints

import hypothesis.strategies as st
import msgpack
import pytest
from hypothesis import given, settings

from engine.wire.messages import TAGS, VERSION, BadFrame, Message, decode, encode

CAP = 1_000_000


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Any value a field of this type may have."""
    if hint is int:
        return st.integers(-(2**63), 2**64 - 1)
    if hint is float:
        return st.floats(allow_nan=False)
    if hint is bool:
        return st.booleans()
    if hint is str:
        return st.text()
    if hint is bytes:
        return st.binary()
    if isinstance(hint, type) and issubclass(hint, tuple) and hasattr(hint, "_fields"):
        return st.builds(hint, *(values_of(part) for part in get_type_hints(hint).values()))
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return st.tuples(*(values_of(part) for part in arguments if part is not Ellipsis))
    if get_origin(hint) is dict:
        return st.dictionaries(*(values_of(part) for part in arguments), max_size=4)
    return st.lists(values_of(arguments[0]), max_size=4)


def messages_of(cls: type[Message]) -> st.SearchStrategy[Message]:
    return st.builds(
        cls, **{name: values_of(hint) for name, hint in get_type_hints(cls).items() if name[0] != "_"}
    )


ANY_MESSAGE = st.one_of([messages_of(cls) for cls in TAGS.values()])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def as_built_in(value: Any) -> Any:
    """Tuples and lists as lists, to compare what travels as an array."""
    if isinstance(value, (list, tuple)):
        return [as_built_in(part) for part in value]
    return value


def fields(message: Message) -> list[Any]:
    return [as_built_in(getattr(message, name)) for name in message.__struct_fields__]


@settings(max_examples=300, deadline=None)
@given(ANY_MESSAGE)
def test_what_is_encoded_decodes_to_the_same_message(message: Message) -> None:
    decoded = decode(encode(message), bytes_max=CAP)
    assert type(decoded) is type(message)
    assert fields(decoded) == fields(message)


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_no_message(frame: bytes) -> None:
    try:
        decode(frame, bytes_max=CAP)
    except BadFrame:
        return
    assert frame[1:2] == bytes([VERSION])  # by chance a message without fields


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(TAGS)), st.lists(JUNK, max_size=8))
def test_random_fields_never_become_a_message_with_a_field_of_another_type(tag: int, junk: list[Any]) -> None:
    try:
        frame = msgpack.packb((VERSION, tag, *junk), use_bin_type=True)
    except (ValueError, UnicodeEncodeError):
        return
    try:
        message = decode(frame, bytes_max=CAP)
    except BadFrame:
        return
    for name, hint in get_type_hints(TAGS[tag]).items():
        if hint in (int, str, bytes, bool, float) and not name.startswith("_"):
            value = getattr(message, name)
            assert isinstance(value, hint)
            assert hint is not int or not isinstance(value, bool)


@settings(max_examples=200, deadline=None)
@given(ANY_MESSAGE, st.data())
def test_a_cut_or_lengthened_frame_is_refused(message: Message, data: st.DataObject) -> None:
    frame = encode(message)
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(BadFrame):
        decode(frame[:cut], bytes_max=CAP)
    with pytest.raises(BadFrame):
        decode(frame + data.draw(st.binary(min_size=1, max_size=8)), bytes_max=CAP)


@settings(max_examples=300, deadline=None)
@given(ANY_MESSAGE, st.data())
def test_a_flipped_bit_gives_a_message_or_a_bad_frame_and_nothing_else(
    message: Message, data: st.DataObject
) -> None:
    frame = bytearray(encode(message))
    place = data.draw(st.integers(0, len(frame) * 8 - 1))
    frame[place // 8] ^= 1 << place % 8
    try:
        assert isinstance(decode(bytes(frame), bytes_max=CAP), Message)
    except BadFrame:
        pass


@pytest.mark.parametrize("cls", TAGS.values())
def test_one_field_too_many_or_too_few_is_refused(cls: type[Message]) -> None:
    tag = next(tag for tag, known in TAGS.items() if known is cls)
    count = len(cls.__struct_fields__)
    with pytest.raises(BadFrame):
        decode(msgpack.packb([VERSION, tag, *[1] * (count + 1)]), bytes_max=CAP)
    if count:
        with pytest.raises(BadFrame):
            decode(msgpack.packb([VERSION, tag]), bytes_max=CAP)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (msgpack.packb([VERSION + 1, 7]), "protocol version"),
        (msgpack.packb(["1", 7]), "protocol version"),
        (msgpack.packb([VERSION, 250]), "unknown message tag"),
        (msgpack.packb([VERSION, "7"]), "unknown message tag"),
        (msgpack.packb({"a": 1}), "not an array"),
        (msgpack.packb([VERSION]), "not an array"),
        (b"\xc1", "not a msgpack frame"),
        (b"\x91" * 5_000, "not a msgpack frame"),
        (msgpack.packb([VERSION, 7, msgpack.ExtType(1, b"x")]), "Beat"),
    ],
)
def test_a_bad_frame_says_why(frame: bytes, says: str) -> None:
    with pytest.raises(BadFrame, match=says):
        decode(frame, bytes_max=CAP)


def test_a_frame_over_the_cap_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadFrame, match="over the cap of 10"):
        decode(b"\x00" * 11, bytes_max=10)


def test_every_message_class_has_exactly_one_tag() -> None:
    assert len(set(TAGS.values())) == len(TAGS)
    assert set(Message.__subclasses__()) == set(TAGS.values())
