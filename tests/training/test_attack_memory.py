"""Attacks that start from what they found last: moved along, in the ball, resumed, refused elsewhere."""

import numpy as np
import pytest
import torch
from torch import nn

import uiat
from support import tiny
from support.helpers import Binary
from uiat import L2, PGD, PGDAT, Batch, Linf
from uiat.data import ImageSet, Loader
from uiat.errors import UserError
from uiat.objectives import Examples
from uiat.system.tensor_files import read_tensors
from uiat.training.attack_memory import recall_starts

EPSILON, STEP = 0.1, 0.03
ATTACK = PGD(threat=Linf(EPSILON), step_size=STEP, steps=1, start="memory")


def shifted(image: np.ndarray, move: tuple[int, int, int]) -> np.ndarray:
    """A crop of a zero-padded image, then mirrored; by numpy."""
    down, right, mirror = move
    cut = np.pad(image, ((0, 0), (3, 3), (3, 3)))[:, 3 + down : 11 + down, 3 + right : 11 + right]
    return cut[:, :, ::-1] if mirror else cut


def unshifted(moved: np.ndarray, old: np.ndarray, move: tuple[int, int, int]) -> np.ndarray:
    down, right, mirror = move
    canvas = np.pad(old, ((0, 0), (3, 3), (3, 3)))
    canvas[:, 3 + down : 11 + down, 3 + right : 11 + right] = moved[:, :, ::-1] if mirror else moved
    return canvas[:, 3:11, 3:11]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_each_image_goes_on_from_its_own_perturbation_where_it_was(accumulate):
    """Three epochs of one step on a linear model whose weights stand still, against a loop over images in numpy."""
    torch.manual_seed(0)
    w = torch.randn(64)
    images = torch.randint(0, 256, (12, 1, 8, 8), dtype=torch.uint8)
    data = ImageSet(images, torch.arange(12) % 2, ("a", "b"), "noise")
    loader = Loader(data, batch_size=6, augment="crop-flip", padding=3)
    model = Binary(w)
    step = uiat.make_step(
        *(model, PGDAT(attack=ATTACK), torch.optim.SGD(model.parameters(), lr=0.0)),
        num_classes=2, image_shape=(1, 8, 8), num_examples=12, accumulate=accumulate,
    )  # fmt: skip
    memory = step.state.attack_memory.numpy().astype(np.float64)
    assert memory.min() < -100  # it begins uniformly in the ball
    assert memory.max() > 100
    for epoch in range(3):
        for batch in loader.epoch(epoch):
            step(batch, epoch=epoch)
            for row, i in enumerate(batch.index.tolist()):
                move = tuple(batch.moves[:, row].tolist())
                x = shifted(images[i].numpy(), move) / 255
                assert np.allclose(batch.x[row], x)
                start = np.clip(x + shifted(memory[i], move) * EPSILON / 127, 0, 1)
                rising = (1 if data.labels[i] == 0 else -1) * np.sign(w.view(1, 8, 8).numpy())
                x_adv = np.clip(np.clip(start + STEP * rising, x - EPSILON, x + EPSILON), 0, 1)
                memory[i] = unshifted(np.rint((x_adv - x) * 127 / EPSILON), memory[i], move)
            found = step.state.attack_memory.numpy()
            assert found.dtype == np.int8
            assert np.abs(found - memory).max() <= 1  # a value next to the middle of two steps
            assert (found != memory).mean() < 0.02
            memory = found.astype(np.float64)
    assert np.abs(memory).max() <= 127


def test_a_start_is_in_the_ball_and_in_the_range_also_while_the_radius_warms_up():
    objective, seen = PGDAT(attack=ATTACK), []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny.linear()

        def forward(self, x):
            seen.append(x.detach().clone())
            return self.inner(x)

    x, y = tiny.tensors(16)
    model = Watching()
    step = uiat.make_step(
        *(model, objective, torch.optim.SGD(model.parameters(), lr=0.0)),
        num_classes=4, image_shape=(1, 8, 8), num_examples=16, radius_warmup_epochs=1,
    )  # fmt: skip
    for epoch, radius in ((0, EPSILON / 2), (1, EPSILON / 2 + STEP + EPSILON / 254)):  # from where the warm-up ended
        seen.clear()
        step(Batch(x, y, torch.arange(16)), epoch=epoch)
        longest = max(float((each - x).abs().max()) for each in seen if len(each) == 16)
        assert 0.9 * radius < longest <= radius + 1e-6
        assert all(0 <= each.min() <= each.max() <= 1 for each in seen)


def test_a_run_that_is_killed_goes_on_bit_for_bit(tmp_path):
    run = tiny.run(objective=PGDAT(attack=tiny.attack(1, start="memory")), data={"augment": "crop-flip"})
    uiat.train(run, run_dir=tmp_path / "whole")
    with pytest.raises(tiny.Killed):
        uiat.train(run, run_dir=tmp_path / "killed", listener=tiny.Killer(4))
    uiat.resume(tmp_path / "killed")
    assert tiny.differences(tmp_path / "whole", tmp_path / "killed") == []
    memory = read_tensors(tmp_path / "killed" / "checkpoint.safetensors")[0]["objective/attack_memory"]
    assert (memory.dtype, memory.shape) == (torch.int8, (96, 1, 8, 8))


@pytest.mark.usefixtures("unchecked")
def test_where_nothing_is_remembered_it_is_refused():
    x, y = tiny.tensors(8)
    model = tiny.linear()
    with pytest.raises(UserError, match=r'start="memory" is for training, .* elsewhere use start="uniform"'):
        ATTACK(model, x, y)
    with pytest.raises(UserError, match="is for training"):
        uiat.evaluate(model, x, y, threat=Linf(EPSILON), attacks=[ATTACK])
    for fields in ({"threat": L2(0.5)}, {"restarts": 2}, {"bounded": False}):
        with pytest.raises(UserError, match="bounded attack under Linf with one restart"):
            PGD(**{"threat": Linf(EPSILON), "start": "memory", **fields})
    with pytest.raises(UserError, match="squeeze training searches once"):
        uiat.Squeeze(attack=PGD(loss="kl", start="memory"))

    def make(**settings):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        shape = {"num_classes": 4, "image_shape": (1, 8, 8), "num_examples": 8}
        return uiat.make_step(model, PGDAT(attack=ATTACK), optimizer, **{**shape, **settings})

    with pytest.raises(UserError, match="for each training image: give num_examples"):
        make(num_examples=None)
    with pytest.raises(UserError, match="replays move their own examples"):
        make(replays=2)
    with pytest.raises(UserError, match=r"give uiat\.Batch"):
        make()(Batch(x, y))
    step = make()
    with pytest.raises(UserError, match=r"remembered for images of shape \(1, 8, 8\), .* are \(1, 4, 4\)"):
        recall_starts(step.objective, step.state, Batch(x[:, :, :4, :4], y, torch.arange(8)))


def test_other_starts_remember_nothing():
    objective, batch = PGDAT(), Batch(*tiny.tensors(8))
    assert recall_starts(objective, nn.Module(), batch) is batch
    assert Examples(batch.x, batch.y).x_adv is None
