"""Everything that the API does for one user, with what it may answer, from the first vote to the erasure."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from idiolect.bank import pair_id
from idiolect_server.store import keyspace
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.keyspace import CHANNEL
from idiolect_server.store.stream import parse_vote
from tests.parts.odd_values.values import Place, places

KEY = "the first vote"


@dataclass
class Walk:
    """`odd` are the answers that are not documented for what was asked, and what an erasure has left."""

    http: httpx.AsyncClient
    connection: Any
    table: CodeTable
    user_id: str
    chats: bool = False
    """Whether the engine has the OpenAI protocol."""
    generation_id: str = ""
    reply: str = ""
    vote_id: str = ""

    def __post_init__(self) -> None:
        self.odd: list[str] = []
        self.prompt = f"Say something to {self.user_id}."

    @property
    def places(self) -> list[Place]:
        """Every key that the user's data are under."""
        name = hashlib.sha256(f"{self.user_id}\0{KEY}".encode()).hexdigest()[:32]
        pair = pair_id([{"role": "user", "content": self.prompt}], self.reply, "something else")
        return places(self.user_id, self.table, self.generation_id, pair, name)

    async def begin(self) -> None:
        """The user says something of themselves, gets a reply, votes on it, likes it, and answers a question."""
        await self._ask("PUT", self._path("/profile"), {"profile": "Brief, please."})
        made = await self._generate()
        self.generation_id, self.reply = made["generation_id"], made["text"]
        self.vote_id = (await self._vote({"generation_id": self.generation_id}))["vote_id"]
        await self._thumb("up")
        question = (await self._ask("GET", self._path("/question")))["question"]
        answer = {"question_id": question["question_id"], "chosen": question["first"], "rejected": question["second"]}
        await self._ask("POST", "/feedback", {"user_id": self.user_id, "consent": True, **answer})

    async def go_on(self) -> None:
        """Whatever the API has, after something else has written to Redis."""
        self.connection.publish(CHANNEL, f"changed {self.user_id}")
        await self._generate()
        await self._ask("GET", self._path())
        await self._ask("GET", self._path("/question"))
        await self._ask("GET", self._path("/votes"))
        await self._ask("GET", "/users", query={"limit": 1000})
        await self._vote({"generation_id": self.generation_id}, "404 unknown_generation", "409 idempotency_conflict")
        await self._thumb("down", "404 unknown_generation")
        body = {"user_id": self.user_id, "prompt": self.prompt, "chosen": "new", "rejected": "old", "consent": True}
        new = await self._ask("POST", "/feedback", body)
        await self._ask("GET", "/feedback", query={"limit": 10_000})
        await self._ask("GET", "/feedback", query={"format": "parquet"})
        await self._ask("DELETE", self._path(f"/votes/{self.vote_id}"), None, "404 unknown_vote")
        if new:
            await self._ask("DELETE", self._path(f"/votes/{new['vote_id']}"))
        await self._ask("PUT", self._path("/profile"), {"profile": "Longer, please."})
        await self._ask("POST", "/generate", {"user_id": self.user_id, "prompt": "x", "max_tokens": 2, "candidates": 2})
        if self.chats:
            chat = {"messages": [{"role": "user", "content": "x"}], "max_tokens": 2, "user": self.user_id}
            await self._ask("POST", "/v1/chat/completions", chat)
        await self._ask("GET", "/status")
        await self._ask("GET", "/health/ready")

    async def erase(self) -> None:
        """Nothing may be left that names the user."""
        await self._ask("DELETE", self._path())
        user = await self._ask("GET", self._path())
        if user and (user["known"] or user["votes"] or user["profile"]):
            self.odd.append(f"known after the erasure: {user}")
        self.odd += [f"left: {what}" for what in self._left()]
        await self._vote({"generation_id": self.generation_id}, "404 unknown_generation", only=True)

    def _left(self) -> Iterator[str]:
        yield from map(str, self.connection.keys(f"*{self.user_id}*"))
        number = keyspace.shard(self.user_id)
        stream = keyspace.of_shard("votes", number)
        for _, fields in self.connection.xrange(stream) if self.connection.type(stream) == b"stream" else ():
            vote = parse_vote(fields)
            if vote is not None and vote["user_id"] == self.user_id:
                yield f"a vote in {stream}"
        erasures = keyspace.of_shard("erasures", number)
        if self.connection.type(erasures) == b"hash":
            yield f"an unfinished erasure: {self.connection.hgetall(erasures)}"

    async def _generate(self) -> Any:
        return await self._ask("POST", "/generate", {"user_id": self.user_id, "prompt": self.prompt, "max_tokens": 4})

    async def _vote(self, on: dict[str, str], *other: str, only: bool = False) -> Any:
        body = {"user_id": self.user_id, "chosen": self.reply, "rejected": "something else", "consent": True, **on}
        return await self._ask("POST", "/feedback", body, *other, headers={"Idempotency-Key": KEY}, only=only)

    async def _thumb(self, thumb: str, *other: str) -> None:
        body = {"user_id": self.user_id, "generation_id": self.generation_id, "thumb": thumb, "consent": True}
        await self._ask("POST", "/feedback", body, *other)

    async def _ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *other: str,
        only: bool = False,
        headers: dict[str, str] | None = None,
        query: dict[str, Any] | None = None,
    ) -> Any:
        """The answer, when it is a success; it may be one of `other` as well, or `only` one of these."""
        try:
            response = await self.http.request(method, path, json=body, headers=headers, params=query)
        except httpx.TransportError as error:
            self.odd.append(f"{method} {path}: {error!r}")
            return None
        if response.status_code == 200:
            if only:
                self.odd.append(f"{method} {path}: 200")
            return response.json() if response.headers["content-type"] == "application/json" else None
        try:
            code = response.json()["error"]["code"]
        except (ValueError, KeyError):
            code = response.text[:100]
        if f"{response.status_code} {code}" not in other:
            self.odd.append(f"{method} {path}: {response.status_code} {code}")
        return None

    def _path(self, more: str = "") -> str:
        return f"/users/{self.user_id}{more}"
