"""Devices by name, and batch norm synchronised between them."""

import pytest
import torch
from torch import nn

from uiat import UserError
from uiat.system.distributed import Rank
from uiat.training import device
from uiat.training.device import pick_device


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "mps:7", "meta"])
def test_devices_that_are_not_here(name):
    with pytest.raises(UserError, match="cannot be used here"):
        pick_device(name)


def test_devices():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_synchronised_batch_norm_needs_gpus(monkeypatch):
    model, cpu = nn.Sequential(nn.BatchNorm2d(3)), torch.device("cpu")
    assert device.sync_batchnorm(model, cpu) is model
    monkeypatch.setattr(device, "current_rank", lambda: Rank(rank=0, size=2))
    with pytest.raises(UserError, match="needs GPUs"):
        device.sync_batchnorm(model, cpu)
    assert isinstance(device.sync_batchnorm(model, torch.device("cuda"))[0], nn.SyncBatchNorm)
