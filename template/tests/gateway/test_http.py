"""Network faults: whether a byte may have been sent."""

import asyncio
from collections.abc import Iterator

import pytest

from gateway.policy import Model
from gateway.providers.base import Deadline, ProviderFailure, ProviderRequest
from gateway.providers.error_answers import ErrorTable
from gateway.providers.http import Http, open_session
from tests.ports import kept_port
from tests.support import POLICY


async def fail(port: int) -> tuple[ProviderRequest, ProviderFailure]:
    """A call that fails, and its failure."""
    url = f"http://127.0.0.1:{port}"
    request = ProviderRequest(Model.model_validate(POLICY["offline/echo"]), {}, Deadline(60))
    async with open_session() as session:
        with pytest.raises(ProviderFailure) as failed:
            await Http(session, url, "", ErrorTable({}, (), {})).json(request, "POST", url, {})
    return request, failed.value


@pytest.fixture
def port() -> Iterator[int]:
    with kept_port() as port:
        yield port


@pytest.mark.parametrize("silent", [False, True])
async def test_without_a_connection_nothing_was_sent(
    port: int, silent: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Addresses without a server: one refuses connections, one does not answer."""

    async def wait(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    if silent:
        monkeypatch.setattr("aiohappyeyeballs.start_connection", wait)
        monkeypatch.setattr("gateway.providers.http.CONNECT_SECONDS", 0.01)
    request, failure = await fail(port)
    assert (request.sent, failure.billed, failure.status) == (False, False, None)


async def test_a_connection_that_is_lost_may_have_been_used() -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        request, failure = await fail(server.sockets[0].getsockname()[1])
    assert (request.sent, failure.billed, failure.status) == (True, None, None)
