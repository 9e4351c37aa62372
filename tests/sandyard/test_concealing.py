"""What a value conceals is in no `repr`, also not in that of what holds it."""

from datetime import UTC, datetime

import msgspec
import pytest
from rich.pretty import pretty_repr

from sandyard.concealing import Concealing
from sandyard_api.image_registry.credentials import ImageLogin
from sandyard_api.jobs.wire import ImageSource, RegistryLogin, SandboxSpec, SecretGrant
from sandyard_api.storage.s3_options import S3Options
from sandyard_api.storage.signature import Signer
from sandyard_runner.egress.policy import OutboundProxy

SECRET = "hunter2"
LOGIN = RegistryLogin("registry.test", "me", SECRET)
VALUES = [
    LOGIN,
    ImageLogin("me", SECRET, datetime(2026, 1, 1, tzinfo=UTC)),
    OutboundProxy("proxy.test", 3128, False, SECRET),
    S3Options("https://s3.test", "bucket", "region", "me", SECRET, SECRET),
    SandboxSpec("id", "organization", "name", "door", outbound_proxy_url=SECRET),
    SecretGrant("VARIABLE", "placeholder", SECRET),
    Signer("me", SECRET, "region", "s3"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_what_is_concealed_is_not_shown(value: Concealing) -> None:
    assert value.concealed <= set(value.__struct_fields__)
    assert SECRET not in repr(value)
    assert SECRET not in repr([value])
    assert SECRET not in pretty_repr([value])


def test_it_is_not_shown_by_what_holds_it() -> None:
    assert SECRET not in repr(ImageSource("debian", "organization", logins=(LOGIN,)))


def test_the_rest_is_shown_and_all_of_it_is_sent() -> None:
    assert repr(LOGIN) == "RegistryLogin(url='registry.test', username='me')"
    assert msgspec.json.decode(msgspec.json.encode(LOGIN), type=RegistryLogin) == LOGIN
