"""The memory of keys and values: what a place gives back reads as zeros, and the others keep theirs."""

import os
from pathlib import Path

import pytest
import torch

from serve_app.decoders.kv_cache import KeyValueCache

CPU, META = torch.device("cpu"), torch.device("meta")
# (layers, heads, capacity, width): smaller than a page, of no whole number of pages, and of several.
SHAPES = [(1, 1, 5, 4), (2, 3, 37, 8), (3, 2, 700, 16)]


def filled(layers, heads, capacity, width, places=4, dtype=torch.float32):
    cache = KeyValueCache(places, layers, heads, capacity, width, dtype, CPU)
    assert not cache.tensor.any()
    cache.tensor.fill_(float("nan"))
    return cache


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize("known", [0, 1, 4])
def test_what_is_given_back_is_zeros_and_nothing_else_is(shape, dtype, place, known):
    cache = filled(*shape, dtype=dtype)
    cache.release(place, known)
    own = cache.tensor[place]
    assert torch.equal(own[..., known:, :], torch.zeros_like(own[..., known:, :]))
    assert own[..., :known, :].isnan().all()
    others = [cache.tensor[other] for other in range(4) if other != place]
    assert torch.stack(others).isnan().all()


def resident_bytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("known", "left"), [(0, 0), (1024, 16)])
def test_the_system_gets_the_memory(known, left):
    mebibyte = 2**20
    cache = KeyValueCache(256, 4, 4, 4096, 128, torch.float32, CPU)
    assert cache.bytes_per_token * 4096 == 64 * mebibyte
    before = resident_bytes()
    # Of 16 GiB only this place is ever written.
    cache.tensor[100].fill_(1.0)
    assert resident_bytes() - before > 60 * mebibyte
    cache.release(100, known)
    assert resident_bytes() - before < (left + 6) * mebibyte


def test_the_first_tokens_are_copied_and_the_others_are_not():
    cache = KeyValueCache(3, 2, 2, 10, 4, torch.float32, CPU)
    cache.tensor[0] = torch.randn_like(cache.tensor[0])
    cache.copy(0, 2, 6)
    assert torch.equal(cache.tensor[2][..., :6, :], cache.tensor[0][..., :6, :])
    assert not cache.tensor[2][..., 6:, :].any()
    assert not cache.tensor[1].any()
