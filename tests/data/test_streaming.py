"""Streaming an image folder gives what loading it into memory gives."""

import pytest
import torch

from support.images import same
from uiat.data import Loader, StreamingLoader, loader_for
from uiat.errors import UserError


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("drop_last", [True, False])
def test_streaming_gives_what_memory_gives(folder, workers, drop_last):
    options = {"batch_size": 5, "augment": "crop-flip", "seed": 3, "drop_last": drop_last, "padding": 2}
    streaming = loader_for(folder, memory_limit=100, num_workers=workers, **options)
    memory = loader_for(folder, **options)
    assert (type(streaming), type(memory)) == (StreamingLoader, Loader)
    for name in ("num_classes", "image_shape", "num_examples"):
        assert getattr(streaming, name) == getattr(memory, name)
    assert len(streaming) == len(memory)
    before = torch.get_rng_state()
    whole = list(streaming.epoch(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same(whole, memory.epoch(2))
    assert same(streaming.epoch(2, start=1), whole[1:])
    with pytest.raises(UserError, match="cannot start"):
        streaming.epoch(0, start=9)


def test_the_number_of_workers(folder):
    assert 1 <= StreamingLoader(folder, batch_size=2).num_workers <= 8
    with pytest.raises(UserError, match="number of workers must not be negative"):
        StreamingLoader(folder, batch_size=2, num_workers=-1)
