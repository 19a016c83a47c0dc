"""`GET /`: what this is, whether it is ready, and where its API is documented."""

import html
import secrets
from pathlib import Path
from string import Template

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.health import is_ready
from app.settings import Settings

router = APIRouter()
PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


@router.get("/", include_in_schema=False)
@router.head("/", include_in_schema=False)
async def show_page(request: Request) -> HTMLResponse:
    """A page that loads nothing from anywhere and runs no script."""
    settings: Settings = request.app.state.settings
    ready = await is_ready(request.app.state)
    nonce = secrets.token_urlsafe(16)
    page = PAGE.substitute(
        title=html.escape(settings.project["title"]),
        description=html.escape(settings.project["description"]),
        state="ready" if ready else "waiting",
        state_text="ready" if ready else "not ready: see its log, or run: make doctor",
        nonce=nonce,
    )
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'self'"
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": policy})
