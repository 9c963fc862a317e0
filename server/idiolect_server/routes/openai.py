"""/v1/chat/completions and /v1/models: the OpenAI API, with `user` honoured."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import TypeAdapter, ValidationError

from idiolect_server.engine.openai import ChatCompletionRequest
from idiolect_server.errors import RequestError
from idiolect_server.routes.caller import unless_caller_leaves
from idiolect_server.serving import serving
from idiolect_server.wire import UserId

router = APIRouter(prefix="/v1")

STATE_HEADER = "x-idiolect-personalization"
_user_id: TypeAdapter[str] = TypeAdapter(UserId)


@router.post("/chat/completions")
async def chat_completions(request: ChatCompletionRequest, http: Request) -> Response:
    """A chat completion in the way that `user` prefers; the header `x-idiolect-personalization` says its state."""
    live = serving(http.app)
    try:
        user_id = None if request.user is None else _user_id.validate_python(request.user)
    except ValidationError as error:
        raise RequestError(f"user: {error.errors()[0]['msg']}") from None
    who = await live.personalizer.find(user_id)
    if request.frequency_penalty is None or "frequency_penalty" not in request.model_fields_set:
        request = request.model_copy(update={"frequency_penalty": live.frequency_penalty})
    answered = await unless_caller_leaves(http, live.openai.chat(request, who.user_tokens, who.profile))
    if answered is None:
        return Response(status_code=499)  # nobody is listening any more
    status, answer = answered
    headers = {STATE_HEADER: who.state}
    if isinstance(answer, dict):
        return JSONResponse(answer, status_code=status, headers=headers)
    return StreamingResponse(answer, media_type="text/event-stream", headers=headers)


@router.get("/models")
async def models(http: Request) -> JSONResponse:
    """The one model that is served."""
    return JSONResponse(await serving(http.app).openai.models())
