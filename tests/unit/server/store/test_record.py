"""Stored codes: bytes from Redis are never trusted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from idiolect.errors import UserCodeError
from idiolect_server.store.record import decode_code, encode_code

CODE = np.array([0.5, -1.25, 3e-9], np.float32)


@pytest.mark.parametrize("origin", ["trained", "inferred"])
def test_round_trip(origin):
    code, found = decode_code(encode_code(CODE, origin))
    np.testing.assert_array_equal(code, CODE)
    assert found == origin


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_noticed(position: int, flip: int):
    record = bytearray(encode_code(CODE))
    record[position % len(record)] ^= flip
    with pytest.raises(UserCodeError):
        decode_code(bytes(record))


@given(st.binary(max_size=64))
def test_noise_is_refused(noise: bytes):
    with pytest.raises(UserCodeError):
        decode_code(noise)


@given(st.integers(0, 27))
def test_truncation_is_noticed(n: int):
    with pytest.raises(UserCodeError):
        decode_code(encode_code(CODE)[:n])


def test_what_is_not_finite_is_neither_written_nor_read():
    with pytest.raises(UserCodeError):
        encode_code(np.array([np.nan], np.float32))
