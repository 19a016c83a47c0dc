"""`POST /v1/chat/completions`, in OpenAI's wire format."""

from fastapi import APIRouter, Request, Response

from app.dependencies import ERRORS
from app.routes.base import Asking, DirectRoute, answer, asking, takes
from gateway.http.chat_stream import ChatStream
from gateway.http.event_stream import unless_left
from gateway.pipeline.pipeline import Guard
from gateway.schemas.chat import ChatRequest

router = APIRouter(tags=["generations"], responses=ERRORS, route_class=DirectRoute)


@router.post("/v1/chat/completions", openapi_extra=takes(ChatRequest))
async def create_chat_completion(request: Request) -> Response:
    """A model's answer to a conversation, in one piece or as a stream of chunks."""
    asked = await asking(request)
    body = await asked.read(ChatRequest)
    return await asked.once(body, lambda: _complete(asked, body))


async def _complete(asked: Asking, body: ChatRequest) -> Response:
    guard: Guard = asked.request.app.state.engine.guard
    call = asked.call("chat", body.model, body.body())
    if body.stream:
        options = body.stream_options
        with_usage = bool(options and options.include_usage)
        begun = await unless_left(asked.request.receive, guard.stream(call))
        return ChatStream(*begun, with_usage=with_usage)
    generation, reply = await guard.generate(call)
    return answer(generation, reply.output)
