"""A caller's address: `X-Forwarded-For` counts from the proxies of FORWARDED_ALLOW_IPS only."""

from typing import Any

import pytest

from app.cli import serve
from app.settings import Settings

PROXY, CALLER, STRANGER = "10.0.0.1", "198.51.100.7", "203.0.113.9"


async def seen(connected: str, forwarded: str, allowed: str = PROXY) -> str:
    """The address that the application sees of a connection with a header."""
    config = serve._config(Settings(_env_file=None, forwarded_allow_ips=allowed))
    addresses: list[str] = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        addresses.append(scope["client"][0])

    # The layer that uvicorn puts around an application.
    config.app, config.factory = note, False
    config.load()
    headers = [(b"x-forwarded-for", forwarded.encode())]
    scope = {"type": "http", "client": (connected, 1), "headers": headers, "scheme": "http"}
    await config.loaded_app(scope, None, None)
    return addresses[0]


async def test_a_proxy_names_the_caller() -> None:
    assert await seen(PROXY, CALLER) == CALLER


async def test_a_caller_chooses_no_address() -> None:
    assert await seen(STRANGER, CALLER) == STRANGER


async def test_what_a_caller_writes_before_the_proxy_does_not_count() -> None:
    assert await seen(PROXY, f"1.2.3.4, {CALLER}") == CALLER


@pytest.mark.parametrize("forwarded", ["", ",", "nonsense", "1.2.3.4:x", "\0"])
async def test_nonsense_is_no_address_of_another_caller(forwarded: str) -> None:
    assert await seen(STRANGER, forwarded) == STRANGER
