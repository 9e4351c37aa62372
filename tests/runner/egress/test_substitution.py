"""What is replaced where, without a network."""

import base64
import itertools
import json
from urllib.parse import parse_qs, quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandyard_api.jobs.wire import SecretGrant
from sandyard_runner.egress.requests import MAX_WHOLE_BYTES, Body, Refused, check_host, without_hop
from sandyard_runner.egress.substitution import Substitution, Unfit

ONE = SecretGrant("ONE", "dtn_secret_one", "first value")
TWO = SecretGrant("TWO", "dtn_secret_two", 'with "quotes" & \n')
BOTH = Substitution([ONE, TWO])
PIECES = st.sampled_from(["dtn_secret_one", "dtn_secret_two", "dtn_secret_", "dtn_", "d", "x", "dtn_secret_on"])


@given(st.lists(PIECES), st.lists(st.integers(0, 200)))
def test_a_body_cut_anywhere_is_as_the_whole_one(pieces: list[str], cuts: list[int]) -> None:
    text = "".join(pieces)
    whole = text.replace(ONE.placeholder, ONE.value).replace(TWO.placeholder, TWO.value)
    body = BOTH.body(b"text/plain")
    assert body is not None
    places = [0, *sorted(cuts), len(text)]
    done = b"".join(body.feed(text[a:b].encode()) for a, b in itertools.pairwise(places))
    assert (done + body.end()).decode() == whole


def test_no_more_is_kept_back_than_may_be_the_beginning_of_a_placeholder() -> None:
    body = BOTH.body(b"")
    assert body is not None
    assert [body.feed(piece) for piece in (b"data: 1\n\n", b"sad", b"nd dtn_secret_x")] == [
        b"data: 1\n\n",
        b"sa",
        b"dnd dtn_secret_x",
    ]


def test_a_value_arrives_as_it_is_wherever_it_stands() -> None:
    target = BOTH.target(b"/path?a=dtn_secret_two&b=1")
    assert parse_qs(target.partition(b"?")[2].decode())["a"] == [TWO.value]
    form, document = BOTH.body(b"application/x-www-form-urlencoded"), BOTH.body(b"application/json; charset=utf-8")
    assert form is not None
    assert document is not None
    assert form.feed(b"a=dtn_secret_two&") == b"a=" + quote(TWO.value, safe="").encode() + b"&"
    assert json.loads(document.feed(b'{"a": "dtn_secret_two"}')) == {"a": TWO.value}


def test_basic_credentials_are_opened_and_closed_again() -> None:
    said = [(b"Authorization", b"basic " + base64.b64encode(b"me:dtn_secret_one")), (b"X", b"Bearer dtn_secret_one")]
    made = BOTH.headers(said)
    assert base64.b64decode(made[0][1].split()[1]) == b"me:first value"
    assert made[1] == (b"X", b"Bearer first value")


def test_a_value_that_no_header_can_carry_is_refused_without_being_told() -> None:
    with pytest.raises(Unfit, match="TWO") as caught:
        BOTH.headers([(b"x", b"dtn_secret_two")])
    assert "quotes" not in str(caught.value)


@pytest.mark.parametrize(
    "kind", [b"application/grpc+proto", b"application/octet-stream", b"application/x-git-receive-pack-request"]
)
def test_bodies_that_tell_lengths_within_pass_as_they_are(kind: bytes) -> None:
    body = Body.of([(b"content-type", kind), (b"content-length", b"14")], BOTH)
    assert (body.is_whole, body.feed(b"dtn_secret_one"), body.end()) == (False, b"dtn_secret_one", b"")


@pytest.mark.parametrize(("length", "is_whole"), [(MAX_WHOLE_BYTES, True), (MAX_WHOLE_BYTES + 1, False)])
def test_a_body_of_a_length_is_read_whole_up_to_a_bound(length: int, is_whole: bool) -> None:
    assert Body.of([(b"content-length", str(length).encode())], BOTH).is_whole is is_whole


def test_what_was_compressed_passes_as_it_is() -> None:
    assert not Body.of([(b"content-encoding", b"gzip"), (b"content-length", b"9")], BOTH).is_whole


@pytest.mark.parametrize("said", [b"www.example.com", b"WWW.example.com:443", b"www.example.com."])
def test_a_request_for_the_host_of_the_connection_is_let_through(said: bytes) -> None:
    check_host(said, "www.example.com")


@pytest.mark.parametrize("said", [b"", b"example.com", b"www.example.com.evil.test", b"[::1]:443", b"evil.test:443"])
def test_a_request_for_another_host_is_not(said: bytes) -> None:
    with pytest.raises(Refused, match="another host"):
        check_host(said, "www.example.com")


def test_headers_of_the_hop_go_and_so_do_those_that_it_names() -> None:
    said = [(b"Connection", b"close, X-Mine"), (b"X-Mine", b"1"), (b"Proxy-Authorization", b"2"), (b"X", b"3")]
    assert without_hop(said) == [(b"x", b"3")]
