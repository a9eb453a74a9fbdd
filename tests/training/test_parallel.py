"""Parts of a batch, and one process alone; several processes are in tests/system/test_distributed.py."""

import pytest
import torch
from torch import nn

from uiat.training.parallel import average_gradients, data_parallel, split_rows


@pytest.mark.parametrize(("count", "parts"), [(1, 1), (7, 3), (8, 4), (3, 5), (128, 7)])
def test_parts_cover_the_batch_once_and_differ_by_one_row_at_most(count, parts):
    rows = split_rows(count, parts)
    assert len(rows) == min(parts, count)
    assert [i for part in rows for i in range(count)[part]] == list(range(count))
    sizes = [part.stop - part.start for part in rows]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1


def test_in_one_process_the_model_and_its_gradients_are_their_own():
    model = nn.Linear(2, 2)
    assert data_parallel(model) is model
    model(torch.ones(1, 2)).sum().backward()
    before = model.weight.grad.clone()
    average_gradients(model.parameters())
    assert torch.equal(model.weight.grad, before)
