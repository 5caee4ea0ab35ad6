"""Blocks of a file: a load that goes on after a crash must cut what the crashed one cut, or rows are sent twice."""

from __future__ import annotations

import io

from hypothesis import given
from hypothesis import strategies as st

from ingest_gateway.domain.fields import RECORD_BYTES
from ingest_gateway.domain.file_reader import chunks


class _Dribbling:
    """A stream that gives less than it is asked for, as unpacking does."""

    def __init__(self, data: bytes, most: int) -> None:
        self._stream, self._most = io.BytesIO(data), most

    def read(self, size: int, /) -> bytes:
        return self._stream.read(min(size, self._most))


lines = st.lists(st.integers(0, 60).map(lambda n: b"x" * n), max_size=60).map(b"\n".join)


@given(lines, st.integers(1, 200), st.integers(1, 50))
def test_blocks_are_the_same_from_wherever_one_goes_on(data: bytes, block_bytes: int, most: int) -> None:
    whole = list(chunks(io.BytesIO(data), 0, 1, block_bytes))
    assert b"".join(chunk.data for chunk in whole) == data
    for number, chunk in enumerate(whole):
        rest = _Dribbling(data[chunk.end :], most)
        lines_before = data.count(b"\n", 0, chunk.end)
        assert list(chunks(rest, chunk.end, lines_before + 1, block_bytes)) == whole[number + 1 :]


def test_an_endless_line_is_one_block_and_the_rest_is_cut_as_ever() -> None:
    data = b"a\n" + b"y" * (3 * RECORD_BYTES) + b"\nb\nc"
    whole = list(chunks(io.BytesIO(data), 0, 1, 100))
    assert [(chunk.first_line, chunk.overlong) for chunk in whole] == [(1, False), (2, True), (3, False), (4, False)]
    assert whole[1].end == data.index(b"\nb") + 1
    assert list(chunks(io.BytesIO(data[whole[1].end :]), whole[1].end, 3, 100)) == whole[2:]
