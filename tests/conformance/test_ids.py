"""What every id source promises, and what sets the two apart."""

import re
import uuid

import pytest

from sandyard.ids import IdSource, RandomIds, SeededIds


@pytest.fixture(params=[RandomIds, SeededIds])
def ids(request: pytest.FixtureRequest) -> IdSource:
    made: IdSource = request.param()
    return made


def test_uuids_are_version_4_in_their_usual_form(ids: IdSource) -> None:
    text = ids.uuid()
    assert str(uuid.UUID(text)) == text
    assert uuid.UUID(text).version == 4


@pytest.mark.parametrize("length", [1, 16, 32, 64])
def test_tokens_have_the_length_asked_for_and_are_safe_in_a_host_name(ids: IdSource, length: int) -> None:
    assert re.fullmatch(rf"[a-z0-9]{{{length}}}", ids.token(length))


def test_nothing_comes_twice(ids: IdSource) -> None:
    made = [ids.uuid() for _ in range(1000)] + [ids.token() for _ in range(1000)]
    assert len(set(made)) == len(made)


def test_the_same_seed_gives_the_same_ids_in_the_same_order() -> None:
    one, two, other = SeededIds(7), SeededIds(7), SeededIds(8)
    first = [one.uuid(), one.token(), one.uuid()]
    assert first == [two.uuid(), two.token(), two.uuid()]
    assert first != [other.uuid(), other.token(), other.uuid()]


def test_random_ids_differ_between_sources() -> None:
    assert RandomIds().token() != RandomIds().token()
