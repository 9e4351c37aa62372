"""The encryption key and the database belong together: a start with another key says so instead of failing later."""

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import delete

from sandyard_api.sealing.models import SealCheck
from sandyard_api.sealing.service import WrongKey
from tests.api.conftest import open_world


async def test_a_database_written_with_another_key_is_refused(database_url: str) -> None:
    async with open_world(database_url):
        pass
    with pytest.raises(WrongKey, match="SANDYARD_ENCRYPTION_KEY"):
        async with open_world(database_url, encryption_key=Fernet.generate_key().decode()):
            pass
    async with open_world(database_url) as world:
        assert (await world.create())["state"] == "started"


async def test_sandboxes_from_before_the_check_tell_the_key_too(database_url: str) -> None:
    async with open_world(database_url) as world:
        await world.create()
        async with world.plane.database.transaction() as db:
            await db.execute(delete(SealCheck))
    with pytest.raises(WrongKey):
        async with open_world(database_url, encryption_key=Fernet.generate_key().decode()):
            pass
    async with open_world(database_url):
        pass


async def test_what_is_no_key_is_refused(database_url: str) -> None:
    with pytest.raises(WrongKey, match="32 bytes"):
        async with open_world(database_url, encryption_key="short"):
            pass
