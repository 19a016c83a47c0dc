"""The answer for a page: what a browser may load and send from it, and who may frame it."""

from fastapi.responses import HTMLResponse


def html_page(
    text: str, policy: str, *, framed_by: frozenset[str] = frozenset(), status: int = 200
) -> HTMLResponse:
    """`text` with a Content-Security-Policy: nothing but what `policy` names.

    `framed_by` are the origins, besides this one, whose pages may show it in a frame.
    """
    ancestors = " ".join(["frame-ancestors 'self'", *sorted(framed_by)])
    forms = "" if "form-action" in policy else "form-action 'none'; "
    rest = f"base-uri 'none'; {forms}{ancestors}"
    headers = {"Content-Security-Policy": f"default-src 'none'; {policy}; {rest}"}
    return HTMLResponse(text, status, headers)
