"""multistream-select: both roles, without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from air.base.clock import Now
from air.base.errors import AirError, Closed, Denied, Misuse, Violation
from air.base.varint import encode_varint
from air.negotiate.multistream import Agreed, Dialer, Listed, Listener, MultistreamConfig, encode_message

NOW = Now(0.0, 0.0)
CONFIG = MultistreamConfig()
HEADER = bytes.fromhex("132f6d756c746973747265616d2f312e302e300a")
NOISE = bytes.fromhex("072f6e6f6973650a")
TLS = bytes.fromhex("0b2f746c732f312e302e300a")
NA = bytes.fromhex("036e610a")
LS = bytes.fromhex("036c730a")


def dialer(*protocols: str) -> Dialer:
    return Dialer(protocols or ["/noise"], CONFIG, NOW)


def listener(*protocols: str) -> Listener:
    return Listener(protocols or ["/noise"], CONFIG, NOW)


def output(side: Dialer | Listener) -> bytes:
    return b"".join(side.take_output())


def code_of(side: Dialer | Listener, *chunks: bytes) -> str:
    """The code that ends the negotiation; and it has ended: nothing is sent and nothing more taken."""
    with pytest.raises(AirError) as refused:
        for chunk in chunks:
            side.receive(chunk, NOW)
    assert output(side) == b""
    assert side.deadline is None
    with pytest.raises(Misuse):
        side.receive(b"x", NOW)
    return refused.value.code


def test_header_and_first_proposal_leave_together_and_so_do_header_and_verdict() -> None:
    opener, called = dialer(), listener()
    first = opener.take_output()
    assert first == [HEADER + NOISE]
    assert called.receive(first[0], NOW) == [Agreed("/noise")]
    verdict = called.take_output()
    assert verdict == [HEADER + NOISE]
    assert opener.receive(verdict[0], NOW) == [Agreed("/noise")]
    assert opener.deadline is None is called.deadline


def test_the_dialers_order_decides() -> None:
    opener, called = dialer("/tls/1.0.0", "/noise"), listener("/noise", "/other")
    assert called.receive(output(opener), NOW) == []
    assert output(called) == HEADER + NA
    assert opener.receive(HEADER + NA, NOW) == []
    assert output(opener) == NOISE
    assert called.receive(NOISE, NOW) == [Agreed("/noise")]
    assert opener.receive(output(called), NOW) == [Agreed("/noise")]


def test_a_listener_that_speaks_first_and_one_that_speaks_in_two_steps_are_understood() -> None:
    opener = dialer()
    assert opener.receive(HEADER, NOW) == []
    assert opener.receive(NOISE, NOW) == [Agreed("/noise")]
    called = listener()
    assert called.receive(HEADER, NOW) == []
    assert output(called) == HEADER
    assert called.receive(NOISE, NOW) == [Agreed("/noise")]
    assert output(called) == NOISE


def test_what_follows_the_agreement_belongs_to_the_protocol() -> None:
    called = listener()
    assert called.receive(HEADER + NOISE + b"\x00\x20and more", NOW) == [Agreed("/noise")]
    assert called.take_rest() == b"\x00\x20and more"
    opener = dialer()
    opener.receive(HEADER + NOISE + HEADER, NOW)
    assert opener.take_rest() == HEADER
    with pytest.raises(Misuse):
        dialer().take_rest()


def test_a_dialer_that_gets_no_for_everything_is_told_so() -> None:
    assert code_of(dialer(), HEADER + NA) == "multistream.unsupported"
    assert code_of(dialer("/a/1", "/b/1"), HEADER + NA, NA) == "multistream.unsupported"
    opener = dialer()
    with pytest.raises(Denied):
        opener.receive(HEADER + NA, NOW)


def test_a_list_is_told_and_read_and_may_be_refused() -> None:
    called = listener("/noise", "/tls/1.0.0")
    assert called.receive(HEADER + LS, NOW) == []
    told = output(called)[len(HEADER) :]
    assert told == bytes([len(NOISE + TLS) + 1]) + NOISE + TLS + b"\n"
    asking = Dialer((), CONFIG, NOW)
    assert output(asking) == HEADER + LS
    assert asking.receive(HEADER + told, NOW) == [Listed(("/noise", "/tls/1.0.0"))]
    assert code_of(Dialer((), CONFIG, NOW), HEADER + NA) == "multistream.no-list"
    # After a list the negotiation goes on.
    assert called.receive(TLS, NOW) == [Agreed("/tls/1.0.0")]
    many = Listener([f"/protocol/{n}" for n in range(2000)], CONFIG, NOW)
    many.receive(HEADER + LS, NOW)
    assert output(many) == HEADER + NA


def test_roles_are_not_settled_here_when_both_sides_dialled() -> None:
    called = listener()
    called.receive(HEADER + encode_message("/libp2p/simultaneous-connect") + NOISE, NOW)
    assert output(called) == HEADER + NA + NOISE
    # Two dialers that propose different protocols find out; with the same one, the layer above does.
    one, other = dialer("/noise", "/tls/1.0.0"), dialer("/tls/1.0.0", "/noise")
    assert code_of(one, output(other)) == "multistream.bad-reply"
    one, other = dialer(), dialer()
    assert one.receive(output(other), NOW) == [Agreed("/noise")]


LISTENER_REFUSES: list[tuple[str, bytes]] = [
    ("multistream.no-header", NOISE),
    ("multistream.no-header", LS),
    ("multistream.no-header", encode_message("/multistream/2.0.0")),
    ("multistream.no-header", HEADER[:-1] + b"\r"),
    ("multistream.empty", HEADER + b"\0"),
    ("multistream.too-long", HEADER + b"\x81\x08"),
    ("multistream.too-long", HEADER + b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"),
    ("multistream.too-long", HEADER + b"\x80\x80"),
    ("multistream.bad-length", HEADER + b"\x87\0" + NOISE[1:]),
    ("multistream.no-header", b"\x93\0" + HEADER[1:]),
    ("multistream.no-header", b"G"),
    ("multistream.no-header", b"\x16\x03\x01"),
    ("multistream.no-newline", HEADER + b"\x06/noise"),
    ("multistream.newline", HEADER + b"\x09/noi\nse\n\n"),
    ("multistream.not-utf8", HEADER + b"\x04/\xff\xfe\n"),
    ("multistream.bad-proposal", HEADER + b"\x06noise\n"),
    ("multistream.bad-proposal", HEADER + NA),
    ("multistream.second-header", HEADER + HEADER),
    ("multistream.too-many", HEADER + TLS * 65),
    ("multistream.too-many", HEADER + LS * 65),
]


@pytest.mark.parametrize(("code", "sent"), LISTENER_REFUSES)
def test_a_listener_refuses(code: str, sent: bytes) -> None:
    assert code_of(listener(), sent) == code
    assert code_of(listener(), *(sent[i : i + 1] for i in range(len(sent)))) == code


@pytest.mark.parametrize(
    ("code", "sent"),
    [
        ("multistream.bad-reply", HEADER + TLS),
        ("multistream.bad-reply", HEADER + HEADER),
        ("multistream.bad-reply", HEADER + b"\x08/noise\r\n"),
        ("multistream.no-header", NOISE),
        ("multistream.empty", HEADER + b"\0"),
        ("multistream.too-long", HEADER + b"\x81\x08"),
    ],
)
def test_a_dialer_refuses(code: str, sent: bytes) -> None:
    assert code_of(dialer(), sent) == code


@pytest.mark.parametrize(
    "body", [b"\x07/noise\n", b"\x09\x07/noise\n\n"[:-1] + b"x", b"\x06\x07/noi\n", b"\x02\0\n"]
)
def test_a_list_in_another_layout_is_refused(body: bytes) -> None:
    assert code_of(Dialer((), CONFIG, NOW), HEADER + body).startswith("multistream.")


def test_an_end_between_messages_is_a_farewell_and_inside_one_an_error() -> None:
    called = listener()
    called.receive(HEADER, NOW)
    with pytest.raises(Closed):
        called.receive_eof(NOW)
    for part in (b"\x13", HEADER + b"\x07/noi", HEADER + b"\x80"):
        called = listener()
        called.receive(part, NOW)
        with pytest.raises(Violation) as refused:
            called.receive_eof(NOW)
        assert refused.value.code == "multistream.truncated"
    called = listener()
    called.receive(HEADER + NOISE, NOW)
    assert called.receive_eof(NOW) == ()


def test_the_time_is_limited() -> None:
    called = listener()
    assert called.deadline == 10.0
    assert called.tick(Now(9.9, 0.0)) == ()
    with pytest.raises(Violation) as refused:
        called.tick(Now(10.0, 0.0))
    assert refused.value.code == "multistream.timeout"


def test_ids_that_cannot_be_sent_are_the_callers_fault() -> None:
    for bad in ("noise", "/a\nb", "/" + "x" * 1023):
        with pytest.raises(Misuse):
            Dialer([bad], CONFIG, NOW)
    longest = "/" + "x" * 1022
    opener, called = Dialer([longest], CONFIG, NOW), listener(longest)
    assert called.receive(output(opener), NOW) == [Agreed(longest)]


def test_a_listener_may_decide_by_a_rule() -> None:
    called = Listener([], CONFIG, NOW, speaks=lambda name: name.startswith("/perf/"))
    assert called.receive(HEADER + NOISE + encode_message("/perf/1.0.0"), NOW) == [Agreed("/perf/1.0.0")]


def test_memory_is_bounded_by_one_message() -> None:
    called = listener()
    called.receive(HEADER + b"\x80\x08" + b"/" * 1000, NOW)
    assert len(called._buffer) <= CONFIG.message_bytes_max + 2


Messages = st.lists(
    st.one_of(
        st.sampled_from([HEADER, NOISE, TLS, NA, LS, b"\0", b"\x80\0", b"\x06noise\n"]),
        st.binary(max_size=6),
        st.text(max_size=5).map(lambda text: encode_message("/" + text)),
        st.integers(0, 3000).map(encode_varint),
    ),
    max_size=6,
)


@given(Messages, st.sampled_from([dialer, listener]), st.data())
def test_events_do_not_depend_on_how_bytes_arrive(
    messages: list[bytes], make: Callable[[], Dialer | Listener], data: st.DataObject
) -> None:
    wire = HEADER + b"".join(messages)

    def play(chunks: Sequence[bytes]) -> tuple[object, ...]:
        side, sent, seen = make(), [], []
        sent.append(output(side))
        try:
            for at, chunk in enumerate(chunks):
                seen += side.receive(chunk, NOW)
                if side.agreed is not None:
                    return (
                        "agreed",
                        seen,
                        b"".join(sent) + output(side),
                        side.take_rest() + b"".join(chunks[at + 1 :]),
                    )
                sent.append(output(side))
            side.receive_eof(NOW)
        except AirError as error:
            return error.code, seen
        raise AssertionError

    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    pieces = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert play(pieces) == play([wire])
