"""What Schemathesis sends beside what it makes up: models that there are, so that calls work."""

from typing import Any

import schemathesis

EMBEDDINGS = "/v1/embeddings"


@schemathesis.hook  # type: ignore[untyped-decorator]
def map_body(context: Any, body: Any) -> Any:
    """Name a model of the service instead of any text."""
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        is_embedding = context.operation.path == EMBEDDINGS
        body["model"] = "offline/embedding" if is_embedding else "offline/echo"
    return body
