"""POST /tokenize, POST /detokenize: texts as the model's token ids, and back."""

from typing import Annotated, Self

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator

from idiolect.errors import LayoutError
from idiolect.text import Printable
from idiolect_server.admission import until
from idiolect_server.errors import DeadlineExceeded, PromptTooLong, RequestError, UnknownModel
from idiolect_server.openapi.refusals import raises
from idiolect_server.serving import leased, serving
from idiolect_server.wire.messages import Messages

router = APIRouter(tags=["server"])


class TokenizeRequest(BaseModel):
    """POST /tokenize: a raw text, or a conversation as the model is shown it, but for the user tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str | None = None
    prompt: Printable | None = None
    messages: Messages | None = None
    add_special_tokens: bool = True
    """Those that the tokenizer begins and ends a raw text with. A conversation's are the chat template's."""
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class TokenizeResponse(BaseModel):
    tokens: list[int]
    count: int
    max_model_len: int
    token_strs: list[str] | None = None
    """As the vocabulary has them, if they are asked for."""


class DetokenizeRequest(BaseModel):
    """POST /detokenize."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: str | None = None
    tokens: list[Annotated[int, Field(ge=0)]]


class DetokenizeResponse(BaseModel):
    prompt: str


@router.post("/tokenize")
@raises(PromptTooLong, LayoutError, DeadlineExceeded, UnknownModel)
async def tokenize(request: TokenizeRequest, http: Request) -> TokenizeResponse:
    """Token ids. Raises PromptTooLong for what the model does not take."""
    live, release = serving(http.app), leased(http)
    release.named(request.model)
    async with until(live.admission.deadline()):
        if request.messages is None:
            ids = await live.engine.conversations.encode(request.prompt or "", request.add_special_tokens)
        else:
            said = [message.plain().model_dump() for message in request.messages]
            ids = list((await live.engine.conversations.place(said, release.layout)).token_ids)
        names = await live.engine.conversations.names(ids) if request.return_token_strs else None
    return TokenizeResponse(tokens=ids, count=len(ids), max_model_len=live.engine.max_model_len, token_strs=names)


@router.post("/detokenize")
@raises(PromptTooLong, DeadlineExceeded, UnknownModel)
async def detokenize(request: DetokenizeRequest, http: Request) -> DetokenizeResponse:
    """What token ids say, special tokens too."""
    live, ids = serving(http.app), request.tokens
    leased(http).named(request.model)
    if len(ids) > live.engine.max_model_len:
        raise PromptTooLong(f"{len(ids)} tokens are more than the {live.engine.max_model_len} that the model takes")
    if any(token >= live.engine.vocab_size for token in ids):
        raise RequestError(f"tokens: the vocabulary has {live.engine.vocab_size}")
    async with until(live.admission.deadline()):
        return DetokenizeResponse(prompt=await live.engine.conversations.decode(ids))
