"""`POST /v1/chat/completions`, in OpenAI's wire format."""

from fastapi import APIRouter, Response

from app.dependencies import ERRORS, ContextDep
from app.routes.base import DirectRoute
from gateway.http.chat_stream import ChatStream
from gateway.http.context import GenerationContext, json_answer
from gateway.http.event_stream import unless_left
from gateway.schemas.answers import CHAT_ANSWERS
from gateway.schemas.chat import ChatRequest

router = APIRouter(tags=["generations"], responses=ERRORS, route_class=DirectRoute)


@router.post("/v1/chat/completions", response_model=None, responses=CHAT_ANSWERS)
async def create_chat_completion(body: ChatRequest, context: ContextDep) -> Response:
    """A model's answer to a conversation, in one piece or as a stream of chunks."""
    return await context.idempotent(body, lambda: _complete(context, body))


async def _complete(context: GenerationContext, body: ChatRequest) -> Response:
    pipeline = context.engine.pipeline
    call = context.call("chat", body.model, body.body())
    if body.stream:
        options = body.stream_options
        with_usage = bool(options and options.include_usage)
        begun = await unless_left(context.request.receive, pipeline.stream(call))
        return ChatStream(*begun, with_usage=with_usage)
    generation, reply = await pipeline.generate(call)
    return json_answer(generation, reply.output)
