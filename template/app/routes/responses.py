"""`POST /v1/responses`, in OpenAI's wire format. Nothing is kept for a later request."""

from fastapi import APIRouter, Request, Response

from app.dependencies import ERRORS
from app.routes.base import Asking, DirectRoute, answer, asking, takes
from gateway.http.event_stream import unless_left
from gateway.http.response_stream import ResponseStream
from gateway.pipeline.formats import RESPONSES
from gateway.pipeline.pipeline import Guard
from gateway.schemas.responses import ResponseRequest

router = APIRouter(tags=["generations"], responses=ERRORS, route_class=DirectRoute)


@router.post("/v1/responses", openapi_extra=takes(ResponseRequest))
async def create_response(request: Request) -> Response:
    """A model's answer to a conversation, in one piece or as a stream of events.

    Stateless: each request holds the whole conversation.
    """
    asked = await asking(request)
    body = await asked.read(ResponseRequest)
    return await asked.once(body, lambda: _respond(asked, body))


async def _respond(asked: Asking, body: ResponseRequest) -> Response:
    guard: Guard = asked.request.app.state.engine.guard
    call = asked.call("chat", body.model, body.body())
    call.format = RESPONSES
    own = {"metadata": body.metadata or {}, "store": False}
    if body.stream:
        begun = await unless_left(asked.request.receive, guard.stream(call))
        return ResponseStream(*begun, own)
    generation, reply = await guard.generate(call)
    return answer(generation, {**reply.output, **own})
