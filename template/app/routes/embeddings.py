"""`POST /v1/embeddings`, in OpenAI's wire format."""

from fastapi import APIRouter, Response

from app.dependencies import ERRORS, ContextDep
from app.routes.base import DirectRoute
from gateway.http.context import GenerationContext, json_answer
from gateway.schemas.answers import EMBEDDING_ANSWERS
from gateway.schemas.embeddings import EmbeddingRequest

router = APIRouter(tags=["generations"], responses=ERRORS, route_class=DirectRoute)


@router.post("/v1/embeddings", response_model=None, responses=EMBEDDING_ANSWERS)
async def create_embedding(body: EmbeddingRequest, context: ContextDep) -> Response:
    """Vectors for texts."""
    return await context.idempotent(body, lambda: _embed(context, body))


async def _embed(context: GenerationContext, body: EmbeddingRequest) -> Response:
    call = context.call("embedding", body.model, body.body())
    # Vectors can be made again and are large: the record keeps what was asked, not them.
    call.keep_output = False
    generation, reply = await context.engine.pipeline.generate(call)
    return json_answer(generation, reply.output)
