"""The Python client of Idiolect, a personalized inference server."""

from idiolect_client.async_client import AsyncClient
from idiolect_client.client import Client
from idiolect_client.errors import (
    APIError,
    BodyTooLarge,
    EngineDead,
    GenerationFailed,
    IdempotencyConflict,
    IdiolectClientError,
    InvalidRequest,
    NotFound,
    NotReady,
    NoUserTurn,
    PromptTooLong,
    StoreUnavailable,
    StreamInterrupted,
    TransportError,
    Unauthorized,
    UnexpectedResponse,
    UnknownGeneration,
    UnknownQuestion,
    UnknownVote,
)
from idiolect_client.request import Message, Options
from idiolect_client.results import Erasure, Generation, Personalization, Question, Status, Usage, User, Vote
from idiolect_client.stream import AsyncStream, Stream

__all__ = [
    "APIError",
    "AsyncClient",
    "AsyncStream",
    "BodyTooLarge",
    "Client",
    "EngineDead",
    "Erasure",
    "Generation",
    "GenerationFailed",
    "IdempotencyConflict",
    "IdiolectClientError",
    "InvalidRequest",
    "Message",
    "NoUserTurn",
    "NotFound",
    "NotReady",
    "Options",
    "Personalization",
    "PromptTooLong",
    "Question",
    "Status",
    "StoreUnavailable",
    "Stream",
    "StreamInterrupted",
    "TransportError",
    "Unauthorized",
    "UnexpectedResponse",
    "UnknownGeneration",
    "UnknownQuestion",
    "UnknownVote",
    "Usage",
    "User",
    "Vote",
]
