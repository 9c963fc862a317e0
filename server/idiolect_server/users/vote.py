"""The vote that a request of /feedback is, with what its ids stand for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from idiolect.bank import NO_REPLY
from idiolect_server.errors import RequestError, UnknownGeneration
from idiolect_server.releases.release import Release
from idiolect_server.store.store import Store
from idiolect_server.users.sides import shown
from idiolect_server.wire.native import as_chat
from idiolect_server.wire.vote import FeedbackRequest


@dataclass(frozen=True)
class _Said:
    """A conversation, and the replies to it: two that were compared, or the one that was judged or changed.

    Of a tie, which of the two is `chosen` says nothing.
    """

    messages: Sequence[Mapping[str, Any]]
    profile: str | None
    chosen: str | None
    rejected: str | None
    reply: str | None = None
    chosen_first: bool | None = None
    """Whether `chosen` was shown before `rejected`, where the server has said in which order."""


async def vote_of(store: Store, release: Release, request: FeedbackRequest) -> dict[str, Any]:
    """The vote to store. Raises UnknownGeneration, UnknownQuestion, and RequestError for what is no vote."""
    said = await _said(store, release, request)
    chosen, rejected = said.chosen, said.rejected
    if not request.compares:
        if said.reply in (None, "", request.edit):
            raise RequestError("the generation's reply is empty, or equals the edit")
        better = NO_REPLY if request.edit is None else request.edit
        chosen, rejected = (said.reply, better) if request.thumb == "up" else (better, said.reply)
    elif request.names_replies and (chosen == rejected or not chosen or not rejected):
        raise RequestError("the two replies cannot be compared: they are equal, or one is empty")
    chosen_first = said.chosen_first if request.shown_first is None else request.shown_first == "chosen"
    if request.kind == "tie" and chosen is not None and rejected is not None:
        chosen, rejected, chosen_first = min(chosen, rejected), max(chosen, rejected), None
    return {
        "messages": [dict(message) for message in said.messages],
        "profile": said.profile,
        "chosen": chosen,
        "rejected": rejected,
        "generation_id": request.generation_id or (request.generation_ids or [None])[0],
        "bundle_id": release.bundle_id,
        "consent": request.consent,
        # Not of a comparison: a request is the same vote, under its idempotency key, as before there were others.
        **({} if request.kind == "comparison" else {"kind": request.kind}),
        **({} if chosen_first is None else {"chosen_first": chosen_first}),
    }


async def _said(store: Store, release: Release, request: FeedbackRequest) -> _Said:
    if request.question_id is not None:
        question = release.learner.question(request.question_id)
        if set(request.texts) != {question.first, question.second}:
            raise RequestError("the two replies are not those of the question")
        turns, first = [dict(message) for message in question.messages], shown(request.user_id, question)[0]
        return _Said(turns, None, *request.texts, chosen_first=request.chosen == first)
    if request.generation_ids is not None:
        made, beside = [await _generation(store, request.user_id, name) for name in request.generation_ids]
        if made["messages"] != beside["messages"]:
            raise RequestError("the two generations reply to different prompts")
        places = made.get("place"), beside.get("place")
        chosen_first = None if None in places or places[0] == places[1] else places[0] == 0
        return _Said(made["messages"], made["profile"], made["text"], beside["text"], chosen_first=chosen_first)
    if request.generation_id is not None:
        found = await _generation(store, request.user_id, request.generation_id)
        if request.indices is not None:
            one, other = request.indices
            sides = _choice(found, one), _choice(found, other)
            return _Said(found["messages"], found["profile"], *sides, chosen_first=one < other)
        reply = _choice(found, request.reply_index or 0)
        return _Said(found["messages"], found["profile"], *request.texts, reply)
    return _Said(as_chat(request.prompt, request.messages), None, *request.texts, request.reply)


def _choice(generation: Mapping[str, Any], index: int) -> str:
    """What one choice of a generation says. Raises RequestError for one that it does not have."""
    choices: Sequence[str] = generation.get("choices") or [generation["text"]]
    if index >= len(choices):
        raise RequestError(f"the generation has no choice {index}", hint=f"it has {len(choices)}, counted from 0")
    return choices[index]


async def _generation(store: Store, user_id: str, generation_id: str) -> dict[str, Any]:
    generation: dict[str, Any] | None = await store.generations.get(user_id, generation_id)
    if generation is None:
        raise UnknownGeneration(f"generation {generation_id} is not known", hint="send prompt or messages instead")
    return generation
