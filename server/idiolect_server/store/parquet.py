"""Votes as a Parquet file, with one schema whatever is in them."""

import io
from collections.abc import Sequence
from typing import Any


def to_parquet(votes: Sequence[dict[str, Any]]) -> bytes:
    """A file with one row a vote, and the same columns even without any."""
    import pyarrow as pa  # late: half a second that no other request needs
    import pyarrow.parquet as pq

    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    schema = pa.schema(
        [
            ("vote_id", pa.string()),
            ("time", pa.float64()),
            ("user_id", pa.string()),
            ("messages", pa.list_(message)),
            ("profile", pa.string()),
            ("chosen", pa.string()),
            ("rejected", pa.string()),
            ("generation_id", pa.string()),
            ("bundle_id", pa.string()),
        ]
    )
    rows = [{name: vote.get(name) for name in schema.names} for vote in votes]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema), file, compression="zstd")
    return file.getvalue()
