"""Invitations, password resets, registration: links that work once, for one address, for a time."""

import asyncio
import datetime as dt
import json
from typing import Any

import httpx2
import pytest
from sqlalchemy import select, update

from gateway.accounts import attempts
from gateway.accounts.audit import command_line
from gateway.accounts.links import Purpose, login_links
from gateway.accounts.principals import Role
from gateway.accounts.signed_links import LASTS
from gateway.accounts.users import Users
from gateway.db.tables import audit, users, utc_now
from tests.fixtures.jwt import Inbox, bearer, log_in
from tests.fixtures.service import Run
from tests.support import Service, User, chat, error_of

NEW, OTHER = "correct horse battery staple", "another battery for the horse"
NOT_VALID = (422, "invalid_request", "token")
WRONG = (401, "invalid_credentials", None)
MINUTE = dt.timedelta(minutes=1)


def token_of(link: str) -> str:
    """The token of a link, which is in its fragment."""
    return link.partition("#")[2].partition("=")[2]


async def accept(service: Service, token: str, password: str = NEW) -> httpx2.Response:
    body = {"token": token, "password": password}
    return await service.client().post("/auth/accept", json=body)


async def verify(service: Service, token: str, password: str = NEW) -> httpx2.Response:
    body = {"token": token, "password": password}
    return await service.client().post("/auth/verify", json=body)


async def invited(service: Service, email: str, **more: str) -> dict[str, Any]:
    admin = service.client(await service.create_user(role=Role.ADMIN))
    answer = await admin.post("/auth/invitations", json={"email": email, **more})
    assert answer.status_code == 201, answer.text
    invitation: dict[str, Any] = answer.json()
    return invitation


async def test_an_invitation_makes_an_account(service: Service) -> None:
    invitation = await invited(service, " Zoe@Example.com ", plan="few", role="auditor")
    assert (invitation["email"], invitation["sent"]) == ("zoe@example.com", False)
    answer = await accept(service, token_of(invitation["link"]))
    me = (await bearer(service, answer.json()).get("/v1/me")).json()
    assert (me["email"], me["role"], me["plan"]) == ("zoe@example.com", "auditor", "few")
    assert (await log_in(service, "zoe@example.com", NEW)).status_code == 200
    # Ids of the same millisecond have no order.
    entries = sorted(await service.rows(audit), key=lambda entry: entry.at)
    actions = [(entry.action, entry.actor_id) for entry in entries[-3:]]
    assert [action for action, _ in actions] == ["create", "invite", "invitation"]
    assert actions[2][1] == me["id"]


async def test_only_administrators_invite(service: Service, user: User) -> None:
    body = {"email": "zoe@example.com", "plan": "few"}
    for client, refused in (
        (service.client(user), (403, "forbidden", None)),
        (service.client(await service.create_user(role=Role.AUDITOR)), (403, "forbidden", None)),
        (service.client(), WRONG),
    ):
        assert error_of(await client.post("/auth/invitations", json=body)) == refused
    assert "zoe@example.com" not in {row.email for row in await service.rows(users)}


async def test_an_account_with_a_password_is_invited_no_more(service: Service) -> None:
    again = [await invited(service, "zoe@example.com") for _ in range(2)]
    await accept(service, token_of(again[0]["link"]))
    # The other one ended with it.
    assert error_of(await accept(service, token_of(again[1]["link"]), OTHER)) == NOT_VALID
    admin = service.client(await service.create_user(role=Role.ADMIN))
    answer = await admin.post("/auth/invitations", json={"email": "zoe@example.com"})
    assert error_of(answer) == (409, "conflict", None)
    wrong = await admin.post("/auth/invitations", json={"email": "y@example.com", "plan": "gone"})
    assert error_of(wrong) == (422, "invalid_request", "plan")


async def test_a_link_works_once_also_at_the_same_time(service: Service) -> None:
    token = token_of((await invited(service, "zoe@example.com"))["link"])
    answers = await asyncio.gather(*(accept(service, token, f"{NEW} {n}") for n in range(8)))
    assert sorted(answer.status_code for answer in answers) == [200, *[422] * 7]
    assert error_of(await accept(service, token, OTHER)) == NOT_VALID
    assert error_of(await log_in(service, "zoe@example.com", OTHER)) == WRONG


async def test_a_link_expires(service: Service) -> None:
    token = token_of((await invited(service, "zoe@example.com"))["link"])
    await service.write(update(login_links).values(expires_at=utc_now() - MINUTE))
    assert error_of(await accept(service, token)) == NOT_VALID
    # Its signed time counts as well.
    links = service.app.state.authenticator.method.links
    row = (await service.database.fetch(select(users)))[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LASTS, Purpose.RESET, -MINUTE)
        expired = await links.create(row, Purpose.RESET)
    later = utc_now() + MINUTE
    await service.write(update(login_links).values(expires_at=later))
    assert error_of(await accept(service, token_of(expired.url))) == NOT_VALID


async def test_a_link_is_for_the_address_that_it_was_made_for(service: Service, user: User) -> None:
    token = token_of((await invited(service, "zoe@example.com"))["link"])
    moved = update(users).where(users.c.email == "zoe@example.com").values(email="a@example.com")
    await service.write(moved)
    assert error_of(await accept(service, token)) == NOT_VALID
    body = {"token": token, "password": NEW, "email": user.email}
    answer = await service.client().post("/auth/accept", json=body)
    assert error_of(answer) == (422, "unsupported_parameter", "email")


async def test_a_link_of_a_disabled_user_is_none(service: Service) -> None:
    token = token_of((await invited(service, "zoe@example.com"))["link"])
    found = await Users(service.database).find("zoe@example.com")
    await Users(service.database).change(found.id, command_line(), disabled=True)
    assert error_of(await accept(service, token)) == NOT_VALID


@pytest.mark.parametrize("token", ["x", "a.b.c", "é", "e30.e30.e30"])
async def test_what_is_no_link(service: Service, token: str) -> None:
    assert error_of(await accept(service, token)) == NOT_VALID
    assert error_of(await verify(service, token)) == NOT_VALID


async def test_an_access_token_is_no_link(service: Service, user: User) -> None:
    assert error_of(await accept(service, user.credential)) == NOT_VALID


async def test_links_on_the_command_line(service: Service, run: Run) -> None:
    made = await run("links", "invite", "--email", "zoe@example.com", "--plan", "few", "--json")
    shown = json.loads(made.stdout)
    assert set(shown) == {"email", "link", "expires_at"}
    assert (await accept(service, token_of(shown["link"]))).status_code == 200
    reset = await run("links", "reset", "--email", "zoe@example.com")
    address, link = reset.stdout.splitlines()
    assert address.startswith("zoe@example.com, until ")
    assert (await accept(service, token_of(link), OTHER)).status_code == 200
    assert error_of(await log_in(service, "zoe@example.com", NEW)) == WRONG
    assert (await run("links", "reset", "--email", "nobody@example.com")).exit_code == 1
    wrong = await run("links", "invite", "--email", "y@example.com", "--plan", "gone")
    assert (wrong.exit_code, "plans.toml" in wrong.stderr) == (1, True)


async def test_without_mail_and_an_open_door_there_is_neither(service: Service) -> None:
    client = service.client()
    for route, body in (
        ("reset", {"email": "zoe@example.com"}),
        ("register", {"email": "zoe@example.com", "password": NEW}),
    ):
        answer = await client.post(f"/auth/{route}", json=body)
        assert error_of(answer) == (403, "forbidden", None)


async def test_a_forgotten_password(mailing: Service, inbox: Inbox) -> None:
    user = await mailing.create_user(email="zoe@example.com")
    answer = await mailing.client().post("/auth/reset", json={"email": " ZOE@example.com"})
    assert answer.status_code == 202
    link = await inbox.link()
    assert link.startswith("https://ai.example.com/auth/link#reset=")
    (mail,) = inbox.mails
    assert (mail.mail_from, mail.rcpt_tos) == ("service@example.com", ["zoe@example.com"])
    tokens = (await accept(mailing, token_of(link))).json()
    assert (await bearer(mailing, tokens).get("/v1/me")).json()["id"] == user.id
    # What was handed out under the old password has ended, and so has the link.
    assert error_of(await mailing.client(user).get("/v1/me")) == WRONG
    assert error_of(await accept(mailing, token_of(link), OTHER)) == NOT_VALID
    assert "zoe@example.com" not in mailing.log
    assert token_of(link) not in mailing.log


async def test_nothing_tells_whether_there_is_an_account(
    mailing: Service, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MAILS_FROM_ADDRESS", 100)
    known = await mailing.create_user()
    disabled = await mailing.create_user()
    await Users(mailing.database).change(disabled.id, command_line(), disabled=True)
    answers = set()
    for email in (known.email, disabled.email, "nobody@example.com"):
        for route, more in (("reset", {}), ("register", {"password": NEW})):
            body = {"email": email, **more}
            answer = await mailing.client().post(f"/auth/{route}", json=body)
            answers.add((route, answer.status_code, answer.text))
    assert len(answers) == 2
    await inbox.link()
    assert error_of(await log_in(mailing, known.email, NEW)) == WRONG


async def test_mails_are_bounded(
    mailing: Service, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MAILS_FROM_ADDRESS", 3)
    reset = {"email": (await mailing.create_user()).email}
    answers = [await mailing.client().post("/auth/reset", json=reset) for _ in range(5)]
    statuses = [answer.status_code for answer in answers]
    assert statuses[:3] == [202, 202, 202]
    assert error_of(answers[-1]) == (429, "too_many_attempts", None)
    await inbox.link()
    await mailing.stop()
    assert len(inbox.mails) == 1


async def register(service: Service, email: str = "zoe@example.com") -> None:
    body = {"email": email, "password": NEW}
    answer = await service.client().post("/auth/register", json=body)
    assert answer.status_code == 202, answer.text


async def test_an_open_registration_asks_for_a_verified_address(
    mailing: Service, inbox: Inbox
) -> None:
    await register(mailing)
    link = await inbox.link()
    assert "#verification=" in link
    tokens = (await log_in(mailing, "zoe@example.com", NEW)).json()
    client = bearer(mailing, tokens)
    assert (await client.get("/v1/me")).json()["role"] == "user"
    refused = await client.post("/v1/chat/completions", json=chat())
    assert error_of(refused) == (403, "forbidden", None)
    assert "Verify your e-mail address" in refused.json()["error"]["message"]
    assert await mailing.rows_count() == 0
    # The link alone is not enough: an account of another person's making stays theirs.
    assert error_of(await verify(mailing, token_of(link), OTHER)) == WRONG
    assert error_of(await accept(mailing, token_of(link), OTHER)) == NOT_VALID
    assert (await verify(mailing, token_of(link))).status_code == 200
    assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
    assert error_of(await verify(mailing, token_of(link))) == NOT_VALID


async def test_the_owner_of_an_address_takes_it_over_from_a_stranger(
    mailing: Service, inbox: Inbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "MAILS_TO_ACCOUNT", 10)
    await register(mailing)
    await inbox.link()
    stranger = (await log_in(mailing, "zoe@example.com", NEW)).json()
    await register(mailing)
    link = await inbox.link(2)
    assert "#reset=" in link
    owner = (await accept(mailing, token_of(link), OTHER)).json()
    assert error_of(await bearer(mailing, stranger).get("/v1/me")) == WRONG
    assert error_of(await log_in(mailing, "zoe@example.com", NEW)) == WRONG
    answer = await bearer(mailing, owner).post("/v1/chat/completions", json=chat())
    assert answer.status_code == 200


@pytest.mark.parametrize("email", ["nobody", "a@b", "a:b@example.com", "x\u200b@example.com"])
async def test_what_is_no_address_registers_nothing(mailing: Service, email: str) -> None:
    body = {"email": email, "password": NEW}
    answer = await mailing.client().post("/auth/register", json=body)
    assert error_of(answer)[:2] == (422, "invalid_request")
