"""The Redis for development and tests: it answers, and it ends with what started it."""

import os
import signal
import subprocess
import sys
import time

import pytest
from redis import Redis
from redis.exceptions import ConnectionError as NotListeningError

from tests.backends import redis

START = """
import time
from tests.backends import redis
with redis.server() as url:
    print(url, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["the machine's own", "the wheel's"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "the wheel's":
        monkeypatch.setenv("PATH", os.devnull)


@pytest.mark.usefixtures("kind")
def test_a_new_server_is_empty_and_ends_with_the_block() -> None:
    with redis.server() as url, Redis.from_url(url) as client:
        assert client.dbsize() == 0
        assert client.set("key", "value")

    with Redis.from_url(url) as client, pytest.raises(NotListeningError):
        client.ping()


def test_a_frozen_server_ends_too() -> None:
    with redis.server() as url, Redis.from_url(url) as client:
        os.kill(client.info("server")["process_id"], signal.SIGSTOP)

    with Redis.from_url(url) as client, pytest.raises(NotListeningError):
        client.ping()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_with_its_process(number: signal.Signals) -> None:
    command = [sys.executable, "-c", START]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()

        process.send_signal(number)

    with Redis.from_url(url) as client:
        assert _stops_listening(client)


def _stops_listening(client: Redis) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            client.ping()
        except NotListeningError:
            return True
        time.sleep(0.01)
    return False
