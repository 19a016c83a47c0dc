"""The page that links lead to: it takes the link, then a password."""

import html

from fastapi.responses import HTMLResponse

from app.auth.port import Field
from app.console.sign_in import field_input, form_page, hidden
from app.schemas.jwt import MIN_PASSWORD
from app.settings import Settings
from gateway.accounts.links import Purpose
from gateway.accounts.signed_links import UnusedLink

# The address of a link has its token in the fragment, which no browser sends. So the page sends
# the token in a form and removes it from the address. Without scripts, a person pastes the link.
SCRIPT = """
  const field = document.getElementById("link");
  const given = location.hash.slice(1);
  if (given) {
    history.replaceState(null, "", location.pathname);
    field.value = given;
    field.form.submit();
  }
"""
LINK = Field("link", "The whole link, as you received it", "text", "off")
LENGTH = f"New password, {MIN_PASSWORD} characters or more"
NEW = (
    Field("password", LENGTH, "password", "new-password"),
    Field("again", "The same password again", "password", "new-password"),
)
CURRENT = (Field("password", "The password of your account", "password", "current-password"),)
TITLES = {
    Purpose.INVITATION: "Choose a password",
    Purpose.RESET: "Choose a new password",
    Purpose.VERIFICATION: "Verify your e-mail address",
}


def link_page(settings: Settings) -> HTMLResponse:
    """The page that takes a link. It is the same for every link, and uses none."""
    content = _form(field_input(LINK), "Continue")
    return form_page(settings, "Your link", content, script=SCRIPT)


def password_page(
    settings: Settings, link: UnusedLink, wrong: str = "", status: int = 200
) -> HTMLResponse:
    """The page with the form that uses a link; `wrong` is text."""
    title = TITLES[link.purpose]
    fields = CURRENT if link.purpose is Purpose.VERIFICATION else NEW
    inputs = hidden("link", link.token) + _username(link.email) + "".join(map(field_input, fields))
    return form_page(settings, title, _form(inputs, title), wrong, status)


def dead_link_page(settings: Settings, wrong: str, status: int) -> HTMLResponse:
    """The page of a link that cannot be used, without a form."""
    return form_page(settings, "Your link", "", wrong, status)


def _username(email: str) -> str:
    """A field for password managers, which ignore fields of type `hidden`. It is not sent."""
    return (
        f'<input type="text" autocomplete="username" value="{html.escape(email)}" hidden readonly>'
    )


def _form(inputs: str, button: str) -> str:
    return f'<form method="post" action="link">{inputs}<button>{button}</button></form>'
