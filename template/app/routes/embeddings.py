"""`POST /v1/embeddings`, in OpenAI's wire format."""

from fastapi import APIRouter, Request, Response

from app.dependencies import ERRORS
from app.routes.base import Asking, DirectRoute, answer, asking, takes
from gateway.pipeline.pipeline import Guard
from gateway.schemas.embeddings import EmbeddingRequest

router = APIRouter(tags=["generations"], responses=ERRORS, route_class=DirectRoute)


@router.post("/v1/embeddings", openapi_extra=takes(EmbeddingRequest))
async def create_embedding(request: Request) -> Response:
    """Vectors for texts."""
    asked = await asking(request)
    body = await asked.read(EmbeddingRequest)
    return await asked.once(body, lambda: _embed(asked, body))


async def _embed(asked: Asking, body: EmbeddingRequest) -> Response:
    guard: Guard = asked.request.app.state.engine.guard
    call = asked.call("embedding", body.model, body.body())
    # Vectors can be made again and are large: the record keeps what was asked, not them.
    call.keep_output = False
    generation, reply = await guard.generate(call)
    return answer(generation, reply.output)
