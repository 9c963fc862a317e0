"""Votes as a Parquet file, with one schema whatever is in them."""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema(
    [
        ("vote_id", pa.string()),
        ("time", pa.float64()),
        ("user_id", pa.string()),
        ("messages", pa.list_(MESSAGE)),
        ("profile", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("generation_id", pa.string()),
        ("bundle_id", pa.string()),
    ]
)


def to_parquet(votes: Sequence[dict[str, Any]]) -> bytes:
    """A file of SCHEMA, one row a vote."""
    rows = [{name: vote.get(name) for name in SCHEMA.names} for vote in votes]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, SCHEMA), file, compression="zstd")
    return file.getvalue()
