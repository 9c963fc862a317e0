"""What somebody else may have put into Redis under a key of ours: each kind of key, with values of each kind."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import redis

from idiolect_server.store import keyspace
from idiolect_server.store.codes import CodeTable
from idiolect_server.store.connection import digest

Write = Callable[[Any, str], object]
"""Puts a value under a key that is free."""

ODD_TEXTS = {
    "empty": b"",
    "one byte": b"x",
    "zero byte": b"\0",
    "not UTF-8": b"\xff\xfe\x80",
    "30 digits": b"123456789012345678901234567890",
    "5,000 digits": b"9" * 5000,
    "16 nines": b"9" * 16,
    "2 ** 52": str(1 << 52).encode(),
    "negative": b"-7",
    "fraction": b"1.5",
    "exponent": b"1e400",
    "hexadecimal": b"0x10",
    "not a number": b"nan",
    "infinite": b"inf",
    "leading zeros": b"0000000000000007",
    "JSON null": b"null",
    "JSON list": b"[]",
    "JSON object": b"{}",
    "JSON number": b"7",
    "JSON text": b'"x"',
    "JSON true": b"true",
    "deep JSON": b"[" * 20_000,
    "half a pair": b'{"pair": "\\ud800", "first": true, "key": "\\ud800"}',
    "pair as list": b'{"pair": ["x"], "first": true, "key": []}',
    "pair without key": b'{"pair": "0123456789abcdef", "first": true}',
    "truth as text": b'{"pair": "0123456789abcdef", "first": "yes", "key": null}',
    "vote without texts": b'{"user_id": 7, "messages": null, "chosen": [], "rejected": {}}',
    "messages of numbers": b'{"user_id": "x", "messages": [1, 2], "chosen": "a", "rejected": "b", "text": "t"}',
    "role unknown": b'{"user_id": "x", "messages": [{"role": "x", "content": "y"}], "profile": null, "text": "t"}',
    "messages empty": b'{"user_id": "x", "messages": [], "chosen": "a", "rejected": "b", "profile": 7, "text": 7}',
    "a record's beginning": b"IDC1\0\0\0\0",
    "a record of another size": b"\0" * 8 + b"IDC1\0\0\0\0\xff\xff\xff\x7f",
    "100 kB": b"long " * 20_000,
    "a digest and no id": b"0" * 32,
    "a digest and an odd id": b"0" * 32 + b"99999999999999999999999-x",
    "pickle": b"\x80\x04K\x01.",
}


def _set(value: bytes) -> Write:
    return lambda connection, key: connection.set(key, value)


def _field(field: str, value: bytes) -> Write:
    return lambda connection, key: connection.hset(key, field, value)


def _entry(stream_id: str, value: bytes) -> Write:
    return lambda connection, key: connection.xadd(key, {"vote": value}, id=stream_id)


STRINGS = {f"text: {name}": _set(value) for name, value in ODD_TEXTS.items()}
TYPES: dict[str, Write] = {
    "a list": lambda connection, key: connection.rpush(key, "a", "b"),
    "a set": lambda connection, key: connection.sadd(key, "a", "b"),
    "a sorted set": lambda connection, key: connection.zadd(key, {"gen-x": 1.0, b"\xff": float("inf")}),
    "a hash": lambda connection, key: connection.hset(key, mapping={b"\xff": b"x", b"f": b""}),
    "a stream": lambda connection, key: connection.xadd(key, {"a": "b"}),
    "bits": lambda connection, key: connection.setbit(key, 9, 1),
    "a sketch": lambda connection, key: connection.pfadd(key, "a"),
}
FIELDS = ("1-0", "7", "", "x", "99999999999999-0", "18446744073709551615-18446744073709551615", "\xff")
HASHES = {f"field {field!r}: {name}": _field(field, value) for field in FIELDS for name, value in ODD_TEXTS.items()}
IDS = (
    "1-1",
    "1-18446744073709551615",
    "99999999999999-0",
    "999999999999999-1",
    "18446744073709551615-18446744073709551615",
)
STREAMS = {f"entry {place}: {name}": _entry(place, value) for place in IDS for name, value in ODD_TEXTS.items()}
STREAMS["an entry of two"] = lambda connection, key: connection.xadd(key, {"a": "b", "c": "d"})
SORTED: dict[str, Write] = {
    "members that are none": lambda connection, key: connection.zadd(
        key, {b"\xff": 0, "": 1e300, "*": float("inf"), "x" * 9999: float("-inf"), "gen-": 2}
    ),
    "1,000 members": lambda connection, key: connection.zadd(key, {f"gen-{n}": 4e9 + n for n in range(1000)}),
}


@dataclass(frozen=True)
class Place:
    """A key of a user, or of the user's shard, and what we keep there: values that have its type and are odd."""

    name: str
    key: str
    own: dict[str, Write]
    shared: bool = False

    def all(self) -> Iterator[tuple[str, Write]]:
        yield from (STRINGS | TYPES | self.own).items()
        yield "nothing", lambda connection, key: None


def places(user_id: str, table: CodeTable, generation_id: str, pair: str, idempotency_key: str) -> list[Place]:
    """Every kind of key that serves, learns from, or erases a user."""
    number = keyspace.shard(user_id)
    key, _ = table.place(user_id)
    of_user = [
        Place("given", keyspace.of_user("given", user_id), HASHES),
        Place("count", keyspace.of_user("count", user_id), {}),
        Place("revision", keyspace.of_user("revision", user_id), {}),
        Place("profile", keyspace.of_user("profile", user_id), {}),
        Place("generations", keyspace.of_user("generations", user_id), SORTED),
        Place("generation", keyspace.generation(user_id, generation_id), {}),
        Place("key", keyspace.idempotency(user_id, idempotency_key), {}),
        Place("inferred", keyspace.inferred(table.bundle_id, user_id), {}),
        Place("gone", keyspace.gone(user_id, digest(user_id)), {}),
    ]
    shared = {
        "votes": (keyspace.of_shard("votes", number), STREAMS),
        "erased": (keyspace.of_shard("erased", number), HASHES),
        "erasures": (keyspace.of_shard("erasures", number), HASHES),
        "tables": (keyspace.of_shard("tables", number), HASHES),
        "codes": (key, HASHES),
        "margins": (keyspace.margins(table.bundle_id, keyspace.shard(pair)), HASHES),
        "tries": (keyspace.tries(table.bundle_id, pair), {}),
    }
    return of_user + [Place(name, key, own, shared=True) for name, (key, own) in shared.items()]


def plant(connection: Any, place: Place, write: Write, beside: bool) -> None:
    """Put a value in a place: instead of what is there, or, where it can stand beside that, beside it."""
    if not beside:
        connection.delete(place.key)
    try:
        write(connection, place.key)
    except redis.ResponseError:  # it is of another type, or no id can follow
        connection.delete(place.key)
        write(connection, place.key)


def mutated(connection: Any, place: Place, rng: random.Random) -> None:
    """What is there, with some bytes changed, added or cut off: all that Redis itself takes back."""
    kind = connection.type(place.key)
    if kind == b"string":
        connection.set(place.key, _mutated(connection.get(place.key), rng), keepttl=True)
    elif kind == b"hash":
        for field, value in connection.hgetall(place.key).items():
            if rng.random() < 0.5:
                connection.hset(place.key, field, _mutated(value, rng))
            else:
                connection.hdel(place.key, field)
                connection.hset(place.key, _mutated(field, rng), value)
    elif kind == b"zset":
        for member, score in connection.zrange(place.key, 0, -1, withscores=True):
            connection.zrem(place.key, member)
            connection.zadd(place.key, {_mutated(member, rng): rng.choice((score, 0.0, -score, 1e6))})
    elif kind == b"stream":
        for stream_id, fields in connection.xrange(place.key):
            connection.xdel(place.key, stream_id)
            connection.xadd(place.key, {_mutated(name, rng): _mutated(value, rng) for name, value in fields.items()})


def _mutated(value: bytes, rng: random.Random) -> bytes:
    found = bytearray(value)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(found) + 1)
        how = rng.randrange(4)
        if how == 0 and found:
            found[place % len(found)] ^= 1 << rng.randrange(8)
        elif how == 1:
            found[place:place] = rng.randbytes(rng.randint(1, 8))
        elif how == 2:
            del found[place:]
        else:
            found += found[:place]
    return bytes(found)
