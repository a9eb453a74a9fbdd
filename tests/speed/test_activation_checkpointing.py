"""Activation checkpointing: blocks are passed twice, less is kept, and nothing of it is left behind."""

import copy

import pytest
import torch

import uiat
from support.helpers import batch, mlp
from uiat import models
from uiat.speed.activation_checkpointing import checkpointed_blocks, find_blocks


def residual():
    torch.manual_seed(2)
    return models.build("preact-resnet8", num_classes=4, image_shape=(1, 8, 8), width=8)


def test_recomputing_passes_blocks_twice_and_leaves_nothing_behind():
    model, calls = residual(), []
    copied = copy.deepcopy(model)
    for block in find_blocks(model):
        block.conv1.register_forward_hook(lambda *_: calls.append(1))
    with checkpointed_blocks(find_blocks(model)):
        model(batch().x).sum().backward()
    # The backward pass needs nothing that the last convolution of a block puts out, but all of the others.
    assert len(calls) == 2 * 3
    assert all("forward" not in vars(block) for block in find_blocks(model))
    assert vars(copied).keys() == vars(model).keys()


def test_recomputing_keeps_less():
    def kept(parts):
        size, model = 0, residual()

        def pack(tensor):
            nonlocal size
            size += tensor.nbytes
            return tensor

        with (
            checkpointed_blocks(find_blocks(model)[:parts]),
            torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t),
        ):
            model(batch().x)
        return size

    assert kept(3) < 0.4 * kept(0)


def test_a_model_without_blocks_cannot_be_recomputed():
    with pytest.raises(uiat.UserError, match="needs a model of blocks"):
        find_blocks(mlp())
