"""`POST /v1/responses`, in OpenAI's wire format. Nothing is kept for a later request."""

from fastapi import APIRouter, Response

from app.dependencies import ERRORS, ContextDep
from app.routes.base import DirectRoute
from gateway.http.context import GenerationContext, json_answer
from gateway.http.event_stream import unless_left
from gateway.http.response_stream import ResponseStream
from gateway.pipeline.formats import RESPONSES
from gateway.schemas.answers import RESPONSE_ANSWERS
from gateway.schemas.responses import ResponseRequest

router = APIRouter(tags=["generations"], responses=ERRORS, route_class=DirectRoute)


@router.post("/v1/responses", response_model=None, responses=RESPONSE_ANSWERS)
async def create_response(body: ResponseRequest, context: ContextDep) -> Response:
    """A model's answer to a conversation, in one piece or as a stream of events.

    Stateless: each request holds the whole conversation.
    """
    return await context.idempotent(body, lambda: _respond(context, body))


async def _respond(context: GenerationContext, body: ResponseRequest) -> Response:
    pipeline = context.engine.pipeline
    call = context.call("chat", body.model, body.body())
    call.format = RESPONSES
    own = {"metadata": body.metadata or {}, "store": False}
    if body.stream:
        begun = await unless_left(context.request.receive, pipeline.stream(call))
        return ResponseStream(*begun, own)
    generation, reply = await pipeline.generate(call)
    return json_answer(generation, {**reply.output, **own})
