"""Sends mail over `SMTP_URL`, in the background: no answer says whether a mail was sent."""

import asyncio
import logging
import smtplib
import ssl
from collections.abc import Coroutine
from email.message import EmailMessage
from functools import partial
from typing import Any

from gateway import addresses
from gateway.errors import ServiceError

logger = logging.getLogger("app")
SMTP_SECONDS = 20
TRIES, PAUSE_SECONDS = 3, 5.0
# More are dropped: a flood of requests must not fill the memory.
MAX_WAITING = 100
AT_ONCE = 2
LOCAL = {"localhost", "127.0.0.1", "::1"}


class Mailer:
    """Sends one mail after another. Without an address of a server, it sends none."""

    def __init__(self, url: str) -> None:
        self._server = addresses.parse(url) if url else None
        self._running: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(AT_ONCE)

    @property
    def can_send(self) -> bool:
        return self._server is not None

    def send(self, to: str, subject: str, text: str) -> None:
        """Send a mail soon. A failure is logged, without the address."""
        if self._server is None:
            return
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = _sender(self._server), to, subject
        message.set_content(text)
        self._start(self._deliver(self._server, message))

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what leads to a mail, in the background. A failure is logged."""
        self._start(self._logged(work))

    async def close(self) -> None:
        """Wait for mails that are being sent."""
        if self._running:
            await asyncio.wait(self._running, timeout=SMTP_SECONDS)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._running) >= MAX_WAITING:
            logger.error("A mail was dropped: %s wait already. Is SMTP_URL right?", MAX_WAITING)
            work.close()
            return
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _logged(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except ServiceError as error:
            logger.warning("A mail was not made: %s", error.code)

    async def _deliver(self, server: addresses.Address, message: EmailMessage) -> None:
        async with self._turns:
            for left in reversed(range(TRIES)):
                try:
                    await asyncio.to_thread(partial(_send, server, message))
                except (OSError, smtplib.SMTPException) as error:
                    logger.warning("A mail was not sent: %s", type(error).__name__)
                else:
                    return
                if left:
                    await asyncio.sleep(PAUSE_SECONDS)
        logger.error("A mail was given up after %s tries.", TRIES)


def _send(server: addresses.Address, message: EmailMessage) -> None:
    """Send over TLS: from the start (`smtps`), or after STARTTLS, which only this machine lacks."""
    trust = ssl.create_default_context()
    with _connect(server, trust) as connection:
        if server.scheme == "smtp" and server.host not in LOCAL:
            connection.starttls(context=trust)
        if server.user:
            connection.login(server.user, server.password or "")
        connection.send_message(message)


def _connect(server: addresses.Address, trust: ssl.SSLContext) -> smtplib.SMTP:
    if server.scheme == "smtps":
        return smtplib.SMTP_SSL(
            server.host, server.port or 465, timeout=SMTP_SECONDS, context=trust
        )
    return smtplib.SMTP(server.host, server.port or 587, timeout=SMTP_SECONDS)


def _sender(server: addresses.Address) -> str:
    """`?from=` of the address, else its user, else a name at its host."""
    user = server.user or ""
    default = user if "@" in user else f"no-reply@{server.host}"
    return dict(server.options).get("from", default)
