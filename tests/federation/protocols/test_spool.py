"""What is put away is what is read, wherever it lies; and nothing of it can be read on the disk."""

from __future__ import annotations

import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedgrpo.federation.protocols.spool import Spool
from fedgrpo.ground.errors import RunError


@given(st.integers(1, 200), st.integers(1, 6), st.integers(0, 6), st.data())
def test_any_piece_of_any_vector_is_read_as_it_was_put_away(size, count, kept, data):
    vectors = np.random.default_rng(0).integers(0, 2**32, (count, size), dtype=np.uint32)
    spool = Spool(size, np.uint32, in_memory=4 * size * kept)
    assert [spool.add(vector) for vector in vectors] == list(range(count))
    for place, vector in enumerate(vectors):
        start = data.draw(st.integers(0, size))
        stop = data.draw(st.integers(start, size))
        np.testing.assert_array_equal(spool.read(place, slice(start, stop)), vector[start:stop])


def test_on_the_disk_no_value_can_be_read_and_no_two_vectors_look_alike():
    spool = Spool(4096, np.float32, in_memory=0)
    for _ in range(2):
        spool.add(np.full(4096, 0.25, np.float32))
    on_disk = os.pread(spool._file._file.fileno(), 2 * 4 * 4096, 0)
    words = np.frombuffer(on_disk, np.uint32)
    assert len(set(words.tolist())) > 0.999 * words.size
    assert np.float32(0.25).tobytes() * 2 not in on_disk


def test_the_file_has_no_name_and_is_gone_with_its_process():
    spool = Spool(16, np.uint32, in_memory=0)
    spool.add(np.zeros(16, np.uint32))
    assert os.fstat(spool._file._file.fileno()).st_nlink == 0


def test_a_full_disk_is_an_error_that_says_what_to_do(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(RunError, match="do not fit the disk") as raised:
        Spool(16, np.uint32, in_memory=0).add(np.zeros(16, np.uint32))
    assert "TMPDIR" in raised.value.cure
