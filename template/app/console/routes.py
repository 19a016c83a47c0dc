"""`GET /`: what this is and whether it is ready; `GET /docs`: its API."""

import html
import secrets
from pathlib import Path
from string import Template

import fastapi_offline
from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, HTMLResponse

from app.console.answers import html_page
from app.dependencies import ReadinessDep, SettingsDep

router = APIRouter()
PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
DOCS = Template(Path(__file__).with_name("docs.html").read_text(encoding="utf-8"))
# Swagger UI, from a package: the pages of this service load nothing from elsewhere.
ASSETS = Path(fastapi_offline.__file__).with_name("static")
CACHE_SECONDS = 24 * 3600


@router.get("/", include_in_schema=False)
@router.head("/", include_in_schema=False)
async def show_page(settings: SettingsDep, readiness: ReadinessDep) -> HTMLResponse:
    """A page that loads nothing from anywhere and runs no script."""
    ready = await readiness.is_ready()
    nonce = secrets.token_urlsafe(16)
    page = PAGE.substitute(
        title=html.escape(settings.project["title"]),
        description=html.escape(settings.project["description"]),
        state="ready" if ready else "waiting",
        state_text="ready" if ready else "not ready: see its log, or run: make doctor",
        nonce=nonce,
    )
    return html_page(page, f"style-src 'nonce-{nonce}'", framed_by=settings.framed_by)


@router.get("/docs", include_in_schema=False)
@router.head("/docs", include_in_schema=False)
async def show_docs(settings: SettingsDep) -> HTMLResponse:
    """The API, to be read and tried out. Its scripts may talk to this service alone."""
    nonce = secrets.token_urlsafe(16)
    page = DOCS.substitute(title=html.escape(settings.project["title"]), nonce=nonce)
    # Swagger UI styles some elements directly, and has its icons in the style sheet.
    style = "style-src 'self' 'unsafe-inline'; img-src 'self' data:"
    policy = f"script-src 'nonce-{nonce}'; connect-src 'self'; {style}"
    return html_page(page, policy, framed_by=settings.framed_by)


@router.get("/docs/swagger-ui.css", include_in_schema=False)
@router.get("/docs/swagger-ui-bundle.js", include_in_schema=False)
async def show_asset(request: Request) -> FileResponse:
    """A part of Swagger UI."""
    cache = {"Cache-Control": f"public, max-age={CACHE_SECONDS}"}
    return FileResponse(ASSETS / Path(request.url.path).name, headers=cache)
