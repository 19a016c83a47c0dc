"""Plain pages with forms, as the page to sign in and out: without a script."""

import html
import secrets
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Any

from fastapi.responses import HTMLResponse

from app.auth.port import Button, Field
from app.console.answers import html_page
from app.settings import Settings
from gateway.http.cookies import csrf_token

PAGE = Template(Path(__file__).with_name("sign_in.html").read_text(encoding="utf-8"))


def forms(
    fields: Iterable[Field], buttons: Iterable[Button], next_path: str, up: str, tab: bool
) -> str:
    """The forms to sign in with. `next_path` is where the browser goes then.

    `up` leads from the page's address to `/auth/`. With `tab`, a provider opens in a tab of its
    own: providers refuse to be in a frame.
    """
    inputs = "".join(map(field_input, fields))
    target = html.escape(next_path)
    form = (
        f'<form method="post" action="{up}session">{hidden("next", next_path)}{inputs}'
        "<button>Sign in</button></form>"
    )
    aim = ' target="_blank" rel="noopener"' if tab else ""
    links = "".join(
        f'<a class="button"{aim} href="{up}login/{html.escape(button.name)}?next={target}">'
        f"Sign in with {html.escape(button.label)}</a>"
        for button in buttons
    )
    return (form if inputs else "") + links


def signed_in(session: Any, token: str) -> str:
    """The forms to sign out with, for a session and its token."""
    csrf = hidden("csrf_token", csrf_token(token))
    form = '<form method="post" action="logout">'
    return (
        f"<p>Signed in as {html.escape(session.email)}.</p>"
        f"{form}{csrf}<button>Sign out</button></form>"
        f"{form}{csrf}{hidden('all', 'true')}<button>Sign out in every browser</button></form>"
    )


def sign_in_page(
    settings: Settings, content: str, wrong: str = "", status: int = 200, up: str = ""
) -> HTMLResponse:
    """The page with `content`, which is markup, and `wrong`, which is text; `up` as in `forms`."""
    return form_page(settings, "Sign in", content, wrong, status, up=up)


def form_page(
    settings: Settings,
    name: str,
    content: str,
    wrong: str = "",
    status: int = 200,
    *,
    up: str = "",
    script: str = "",
) -> HTMLResponse:
    """A page as `sign_in_page`, with its `name` and the only script that it runs, if any."""
    nonce = secrets.token_urlsafe(16)
    told = f'<p class="wrong" role="alert">{html.escape(wrong)}</p>' if wrong else ""
    title = html.escape(settings.project["title"])
    code = f'<script nonce="{nonce}">{script}</script>\n' if script else ""
    page = PAGE.substitute(
        name=name, title=title, nonce=nonce, up=up, content=told + content, script=code
    )
    scripts = f"script-src 'nonce-{nonce}'; " if script else ""
    policy = f"{scripts}style-src 'nonce-{nonce}'; form-action 'self'"
    answer = html_page(page, policy, framed_by=settings.framed_by, status=status)
    answer.headers["Cache-Control"] = "no-store"
    # With no-referrer, browsers would send `Origin: null` with the forms.
    answer.headers["Referrer-Policy"] = "same-origin"
    return answer


def field_input(field: Field) -> str:
    """A field with its label."""
    name, label, kind, autocomplete = map(html.escape, field)
    return (
        f'<label for="{name}">{label}</label><input id="{name}" name="{name}" type="{kind}" '
        f'autocomplete="{autocomplete}" required>'
    )


def hidden(name: str, value: str) -> str:
    """A field that a person does not see."""
    return f'<input type="hidden" name="{name}" value="{html.escape(value)}">'
