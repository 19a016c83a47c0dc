"""Log-ins under a flood: it is refused before it costs, and other users log in."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from app import wiring
from gateway.accounts import attempts
from gateway.accounts import password_checker as checker
from gateway.accounts.attempts import FROM_ADDRESS, FROM_ADDRESS_ON_ACCOUNT
from gateway.accounts.password_checker import HASHES_AT_ONCE
from gateway.accounts.throttle import TooManyAttempts
from tests.fixtures.passwords import CHEAP
from tests.fixtures.service import TryLogIn
from tests.sign_in import form_of
from tests.support import PATIENCE_SECONDS, Service, User, error_of, eventually

REFUSED = (429, "too_many_attempts", None)
OWN, ANOTHER, FLOODING = "192.0.2.1", "192.0.2.2", "198.51.100.9"


async def asked(log_in: TryLogIn, user: User, address: str, password: str = "") -> int:
    """The status of a log-in with the right password, or with another."""
    return (await log_in(user.email, password or user.credential, address)).status_code


async def guess(log_in: TryLogIn, user: User, address: str, times: int) -> list[int]:
    """The statuses of wrong log-ins."""
    return [await asked(log_in, user, address, f"{address} {n}") for n in range(times)]


async def flood(log_in: TryLogIn, times: int) -> list[Any]:
    """Log-ins at the same time with unknown names."""
    names = (f"{n}@example.com" for n in range(times))
    return await asyncio.gather(*(log_in(name, "x", FLOODING) for name in names))


@pytest.fixture(autouse=True)
def _patient_queue(service: Service) -> None:
    """On a busy machine a hash waits for longer, which is no failure."""
    service.app.state.authenticator.method.checker._turns._seconds = PATIENCE_SECONDS


class Held:
    """Hashes that end when the test lets them."""

    hash = CHEAP.hash

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ends = threading.Semaphore(0)

    def verify(self, password: str, stored: str) -> bool:
        self.begun.append(password)
        assert self._ends.acquire(timeout=PATIENCE_SECONDS)
        return CHEAP.verify(password, stored)

    def end(self, number: int) -> None:
        self._ends.release(number)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    hasher = Held()
    monkeypatch.setattr(checker, "HASHER", hasher)
    yield hasher
    hasher.end(1000)


async def test_many_names_from_one_address_are_refused_before_they_are_hashed(
    try_log_in: TryLogIn, hashed: list[str]
) -> None:
    answers = await flood(try_log_in, 500)
    # Some more pass only when this takes so long that the bucket refills.
    assert FROM_ADDRESS <= len(hashed) < 2 * FROM_ADDRESS
    refused = [answer for answer in answers if error_of(answer) == REFUSED]
    assert len(refused) == 500 - len(hashed)
    assert all(1 <= int(answer.headers["Retry-After"]) <= 60 for answer in refused)


async def test_a_flood_from_one_address_leaves_the_next_hash_to_the_others(
    service: Service, try_log_in: TryLogIn, user: User, held: Held
) -> None:
    """A log-in waits for those that are being hashed, and for one more of the flood."""
    flooding = asyncio.create_task(flood(try_log_in, FROM_ADDRESS // 2))
    await eventually(lambda: is_waiting(service, FROM_ADDRESS // 2 - HASHES_AT_ONCE))
    login = asyncio.create_task(asked(try_log_in, user, OWN))
    await eventually(lambda: is_waiting(service, FROM_ADDRESS // 2 - HASHES_AT_ONCE + 1))
    held.end(HASHES_AT_ONCE + 2)
    assert await login == 200
    assert held.begun.index(user.credential) <= HASHES_AT_ONCE + 1
    held.end(FROM_ADDRESS)
    await flooding


async def test_an_address_of_the_account_is_hashed_before_all_others(
    service: Service, try_log_in: TryLogIn, user: User, held: Held, forgetful: None
) -> None:
    held.end(1)
    assert await asked(try_log_in, user, OWN) == 200
    flooding = asyncio.create_task(flood(try_log_in, FROM_ADDRESS // 2))
    await eventually(lambda: is_waiting(service, FROM_ADDRESS // 2 - HASHES_AT_ONCE))
    login = asyncio.create_task(asked(try_log_in, user, OWN))
    await eventually(lambda: is_waiting(service, FROM_ADDRESS // 2 - HASHES_AT_ONCE + 1))
    held.end(HASHES_AT_ONCE + 1)
    assert await login == 200
    assert held.begun.index(user.credential, 1) == HASHES_AT_ONCE + 1
    held.end(FROM_ADDRESS)
    await flooding


async def test_a_hash_that_nobody_gets_to_in_time_is_refused(
    service: Service, try_log_in: TryLogIn, user: User, held: Held
) -> None:
    service.app.state.authenticator.method.checker._turns._seconds = 0.05
    others = asyncio.create_task(flood(try_log_in, HASHES_AT_ONCE))
    await eventually(lambda: has_begun(held, HASHES_AT_ONCE))
    response = await try_log_in(user.email, user.credential, OWN)
    assert error_of(response) == REFUSED
    assert int(response.headers["Retry-After"]) >= 1
    held.end(1000)
    await others
    assert await asked(try_log_in, user, OWN) == 200


async def test_six_addresses_lock_no_account(try_log_in: TryLogIn, user: User) -> None:
    for number in range(6):
        statuses = await guess(try_log_in, user, f"203.0.113.{number}", FROM_ADDRESS_ON_ACCOUNT + 1)
        assert statuses[:FROM_ADDRESS_ON_ACCOUNT] == [401] * FROM_ADDRESS_ON_ACCOUNT
    assert await asked(try_log_in, user, OWN) == 200


async def test_any_number_of_addresses_locks_nobody_out_of_their_own(
    service: Service,
    try_log_in: TryLogIn,
    user: User,
    forgetful: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the account's bucket is empty, a stranger waits even with the right password."""
    monkeypatch.setattr(attempts, "ON_ACCOUNT", 1)
    assert await asked(try_log_in, user, OWN) == 200
    assert await guess(try_log_in, user, "203.0.113.1", 1) == [401]
    assert await guess(try_log_in, user, ANOTHER, 1) == [429]
    # Another process, or this one after its start: it knows no password that was right.
    limiter = service.engine.limiter
    fresh = wiring.auth.open_authenticator(service.settings, service.database, limiter)
    form = form_of(user)
    with pytest.raises(TooManyAttempts):
        await fresh.sign_in(form, ANOTHER)
    assert (await fresh.sign_in(form, OWN)).user_id == user.id


async def test_names_of_others_do_not_use_up_what_an_account_may_at_its_own_address(
    service: Service, try_log_in: TryLogIn, user: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FROM_ADDRESS", 1)
    assert await asked(try_log_in, user, FLOODING) == 200
    await flood(try_log_in, 5)
    other = await service.create_user()
    assert await asked(try_log_in, other, FLOODING) == 429
    # A wrong one is counted, and not refused.
    assert await guess(try_log_in, user, FLOODING, 1) == [401]


async def test_an_office_that_logs_in_is_no_flood(
    service: Service, try_log_in: TryLogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-ins that succeed count for nothing."""
    monkeypatch.setattr(attempts, "FROM_ADDRESS", 1)
    for _ in range(5):
        assert await asked(try_log_in, await service.create_user(), OWN) == 200


async def is_waiting(service: Service, number: int) -> bool:
    """Whether so many wait for their hash."""
    turns = service.app.state.authenticator.method.checker._turns
    queues = [*turns._first._queues.values(), *turns._others._queues.values()]
    return sum(map(len, queues)) == number


async def has_begun(held: Held, number: int) -> bool:
    return len(held.begun) == number
