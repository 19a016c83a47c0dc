"""The format of API keys: detects keys that are mistyped, truncated or invented."""

import asyncio
import string
from typing import NoReturn

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gateway.accounts.api_keys import (
    ALPHABET,
    CHECKSUM_LENGTH,
    SECRET_LENGTH,
    Keys,
    checksum,
    compose,
    parse,
)
from gateway.errors import DatabaseUnavailable
from gateway.ids import new_id
from scripts.key_detector import ApiKeyDetector
from tests.support import Service, User, error_of

SLUGS = st.from_regex(r"[a-z]([-_]?[a-z0-9]){1,20}", fullmatch=True)
IDS = st.text(string.digits + string.ascii_lowercase, min_size=26, max_size=26).map("key_{}".format)
SECRETS = st.text(ALPHABET, min_size=SECRET_LENGTH, max_size=SECRET_LENGTH)
CHARACTERS = st.sampled_from(string.ascii_letters + string.digits + "_-äß \0")


@given(SLUGS, IDS, SECRETS)
def test_a_composed_key_is_parsed(slug: str, key_id: str, secret: str) -> None:
    key = compose(slug, key_id, secret)
    assert key.startswith(f"{slug}_live_")
    assert len(key) == len(f"{slug}_live__") + len(key_id) - 4 + SECRET_LENGTH + CHECKSUM_LENGTH
    assert parse(key) == (key_id, secret)


@given(SLUGS, SECRETS)
def test_scanners_find_a_key_wherever_it_stands(slug: str, secret: str) -> None:
    key = compose(slug, new_id("key"), secret)
    found = ApiKeyDetector().analyze_string
    for line in (key, f'KEY = "{key}"', f"# Authorization: Bearer {key}, and more"):
        assert list(found(line)) == [key]
    assert not list(found(key[:-1])) + list(found(f"{key}0"))


@given(IDS, SECRETS, st.data())
def test_one_wrong_character_is_found(key_id: str, secret: str, data: st.DataObject) -> None:
    key = compose("acme", key_id, secret)
    place = data.draw(st.integers(0, len(key) - 1))
    character = data.draw(CHARACTERS)
    assume(character != key[place])
    assert parse(key[:place] + character + key[place + 1 :]) is None


@given(IDS, SECRETS, st.data())
def test_swapped_neighbours_are_found(key_id: str, secret: str, data: st.DataObject) -> None:
    key = compose("acme", key_id, secret)
    place = data.draw(st.integers(0, len(key) - 2))
    swapped = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assume(swapped != key)
    assert parse(swapped) is None


@given(IDS, SECRETS, st.data())
def test_a_part_is_not_the_whole(key_id: str, secret: str, data: st.DataObject) -> None:
    key = compose("acme", key_id, secret)
    end = data.draw(st.integers(0, len(key) - 1))
    # A checksum of 32 bits can be right by chance, but not for another secret of this length.
    assert parse(key[:end]) != (key_id, secret)
    assert parse(key[end:] if end else "") != (key_id, secret)


@given(st.text())
def test_any_text_is_parsed_without_a_crash(text: str) -> None:
    assert parse(text) is None


# Keys that were issued stay valid: CRC-32 in base 62, digits first, then capitals.
@pytest.mark.parametrize(("body", "expected"), [("", "000000"), ("a", "4GEHKN")])
def test_the_checksum_stays_as_it_is(body: str, expected: str) -> None:
    assert checksum(body) == expected


@given(st.text())
def test_the_checksum_has_a_fixed_length(body: str) -> None:
    text = checksum(body)
    assert len(text) == CHECKSUM_LENGTH
    assert set(text) <= set(ALPHABET)


async def test_a_mistyped_key_is_refused_without_asking_the_database(
    service: Service, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: object) -> NoReturn:
        raise DatabaseUnavailable("The database does not answer.")

    monkeypatch.setattr(Keys, "with_owners", gone)
    asked = await service.client(user).get("/v1/me")
    assert error_of(asked) == (503, "database_unavailable", None)
    for key in (user.credential[:-1], user.credential.swapcase(), f"x{user.credential}"):
        response = await service.client(Authorization=f"Bearer {key}").get("/v1/me")
        assert error_of(response) == (401, "invalid_credentials", None)


async def test_a_key_outlives_the_name_of_its_service(service: Service, user: User) -> None:
    parts = parse(user.credential)
    assert parts is not None
    renamed = service.client(Authorization=f"Bearer {compose('its-former-name', *parts)}")
    assert (await renamed.get("/v1/me")).status_code == 200


async def test_a_key_that_no_database_can_look_for_fails_no_other_request(
    service: Service, user: User
) -> None:
    """Requests of a moment share one query: some databases refuse all of it for a NUL."""
    wrong = compose("acme", "key_\0", SECRET_LENGTH * "0")
    attack = service.client()
    answers = await asyncio.gather(
        *(attack.post("/auth/session", data={"api_key": wrong}) for _ in range(10)),
        *(service.client(user).get("/v1/me") for _ in range(10)),
    )
    assert [answer.status_code for answer in answers] == 10 * [401] + 10 * [200]


async def test_a_well_formed_key_with_another_secret_is_refused(
    service: Service, user: User
) -> None:
    slug = service.settings.project["name"]
    parts = parse(user.credential)
    assert parts is not None
    for key in (
        compose(slug, parts[0], SECRET_LENGTH * "0"),
        compose(slug, parts[0], ""),
        compose(slug, "key_" + 26 * "0", parts[1]),
        compose(slug, "key_", ""),
    ):
        response = await service.client(Authorization=f"Bearer {key}").get("/v1/me")
        assert error_of(response) == (401, "invalid_credentials", None)
    assert (await service.client(user).get("/v1/me")).status_code == 200
