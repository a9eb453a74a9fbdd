"""A certification that was stopped is resumed to the same radii, and by no other one."""

import pytest
import torch
from torch import nn

import uiat.certify.smoothing as module
from uiat import UserError, certify_smoothing
from uiat.certify.smoothing_state import SmoothingState
from uiat.system.distributed import Rank
from uiat.system.tensor_files import write_tensors


def stop(name, done, total):
    if done == 2:
        raise KeyboardInterrupt


def test_it_is_resumed_to_the_same_radii(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(4, 1, 2, 2)
    y, options = model(x).argmax(1), {"sigma": 0.25, "n": 200, "state": tmp_path / "state.safetensors"}
    with pytest.raises(KeyboardInterrupt):
        certify_smoothing(model, x, y, progress=stop, **options)
    with pytest.raises(UserError, match=r"state\.safetensors holds the state of a certification: resume it"):
        certify_smoothing(model, x, y, **options)
    for other in ({"sigma": 0.5}, {"seed": 1}):
        with pytest.raises(UserError, match="is the state of another certification; it was left as it is"):
            certify_smoothing(model, x, y, resume=True, **options | other)
    certified, whole = [], certify_smoothing(model, x, y, sigma=0.25, n=200)
    one = module._certify_image
    monkeypatch.setattr(module, "_certify_image", lambda *a, **k: certified.append(k["index"]) or one(*a, **k))
    assert certify_smoothing(model, x, y, resume=True, **options).radii == whole.radii
    assert certified == [2, 3]


def test_several_processes_take_over_from_one_another(tmp_path):
    path = tmp_path / "state.safetensors"
    for rank in range(2):
        SmoothingState(path, Rank(rank, 2), "a").save({rank: (0, 10 + rank)})
    assert SmoothingState(path, Rank(2, 3), "a").open(resume=True) == {0: (0, 10), 1: (0, 11)}
    write_tensors(path, {"found": torch.zeros(1, 3)}, {"kind": "another"})
    with pytest.raises(UserError, match="another certification"):
        SmoothingState(path, Rank(), "a").open(resume=True)
