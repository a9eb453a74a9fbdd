"""Single-step training: N-FGSM leaves the ball as it should, GradAlign measures directions, UIAT goes on top."""

import pytest
import torch
from torch import nn

import uiat
from uiat import Batch, Linf, models, override, recipes
from uiat.objectives import baselines
from uiat.objectives import uiat as uiat_module
from uiat.objectives.grad_align import misalignment
from uiat.system.distributed import Rank


class Linear(nn.Module):
    """Logits (w x, -w x): the gradient of its loss has one direction everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 3.0, -4.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        value = x.flatten(1) @ self.w
        return torch.stack([value, -value], dim=1)


def test_n_fgsm_adds_a_whole_step_to_noise_of_twice_the_radius() -> None:
    model, epsilon = Linear(), 0.05
    x, y = torch.full((512, 1, 2, 2), 0.5), torch.zeros(512, dtype=torch.int64)
    moved = uiat.NFGSM(threat=Linf(epsilon))(model, x, y) - x
    step = -epsilon * model.w.sign().view(1, 1, 2, 2)
    noise = moved - step
    assert noise.abs().max() <= 2 * epsilon + 1e-6
    assert noise.abs().max() > 1.9 * epsilon
    assert noise.mean().abs() < 0.1 * epsilon
    assert moved.abs().max() > 2.8 * epsilon  # far outside the ball, which is the point
    assert uiat.FGSMRS(threat=Linf(epsilon))(model, x, y).sub(x).abs().max() <= epsilon + 1e-6


def test_n_fgsm_stays_in_the_range_of_images() -> None:
    x = uiat.NFGSM(threat=Linf(0.2))(Linear(), torch.rand(64, 1, 2, 2), torch.zeros(64, dtype=torch.int64))
    assert x.min() >= 0
    assert x.max() <= 1


def test_a_start_outside_of_a_ball_that_binds_is_refused() -> None:
    with pytest.raises(uiat.UserError, match="outside the ball"):
        uiat.PGD(threat=Linf(0.1), step_size=0.1, start_radius=2.0)
    with pytest.raises(uiat.UserError, match="start_radius must be above 0"):
        uiat.PGD(threat=Linf(0.1), step_size=0.1, start_radius=0.0)


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_misalignment_is_of_the_model_as_it_is_attacked(monkeypatch, mode: str) -> None:
    """In eval mode an image's gradient is its own affair; in train mode the rest of its batch has a part in it."""
    model = models.build("preact-resnet8", num_classes=2, image_shape=(3, 16, 16), width=8)
    x, y = torch.rand(8, 3, 16, 16), torch.arange(8) % 2
    model(x)  # so that there are statistics
    before = {name: value.clone() for name, value in model.state_dict().items()}
    noise = 0.2 * torch.rand_like(x) - 0.1
    monkeypatch.setattr(Rank, "draw", lambda self, like, fill: noise[: len(like)])
    attack = uiat.FGSM(threat=Linf(0.1), batchnorm=mode)
    whole, alone = misalignment(model, x, y, attack), misalignment(model, x[:4], y[:4], attack)
    assert torch.allclose(whole[:4], alone, atol=1e-4) is (mode == "eval")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    whole.mean().backward()
    assert all(p.grad is not None for p in model.parameters() if p.ndim > 1)


@pytest.mark.parametrize("method", ["grad-align", "grad-align-uiat"])
def test_the_term_is_of_the_gradients_that_the_attack_takes(monkeypatch, method: str) -> None:
    attacks = []

    def record(model: nn.Module, x: torch.Tensor, y: torch.Tensor, attack: uiat.PGD) -> torch.Tensor:
        attacks.append(attack)
        return torch.ones(len(y))

    for module in (baselines, uiat_module):
        monkeypatch.setattr(module, "misalignment", record)
    objective = recipes.get(f"digits-{method}").objective
    model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
    x, y = torch.rand(4, 1, 8, 8), torch.arange(4)
    state = objective.init(num_classes=10, image_shape=(1, 8, 8))
    terms = objective.loss(model, objective.perturb(model, Batch(x, y, y), state, epoch=0))
    assert attacks == [objective.attack]
    assert terms["alignment"].tolist() == pytest.approx([objective.alignment] * 4)


def test_misalignment_is_of_directions_and_trains_weights() -> None:
    x, y, attack = torch.rand(16, 1, 2, 2), torch.arange(16) % 2, uiat.FGSM(threat=Linf(0.2))
    assert misalignment(Linear(), x, y, attack).abs().max() < 1e-5
    torch.manual_seed(1)
    curved = nn.Sequential(nn.Flatten(), nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 2))
    with torch.no_grad():
        curved[1].weight.mul_(20)
    found = misalignment(curved, x, y, attack)
    assert found.max() > 0.1
    assert found.min() >= -1e-6
    assert found.max() <= 2
    before = found.mean()
    before.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in curved[1].parameters())
    optimizer = torch.optim.Adam(curved.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        misalignment(curved, x, y, attack).mean().backward()
        optimizer.step()
    assert misalignment(curved, x, y, attack).mean() < 0.5 * before


def test_uiat_awp_ema_and_n_fgsm_are_four_fields() -> None:
    run = override(
        recipes.get("digits-uiat"),
        [
            ("objective.attack.steps", "1"),
            ("objective.attack.step_size", "0.2"),
            ("objective.attack.start_radius", "2"),
            ("objective.attack.bounded", "false"),
            ("optimisation.awp", "0.005"),
            ("optimisation.average", "ema"),
            ("optimisation.average_decay", "0.9"),
            ("model.width", "4"),
            ("optimisation.epochs", "2"),
        ],
    )
    x, y = uiat.data.tensors("digits", "train")
    model = uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
    trained = uiat.fit(model, (x[:320], y[:320]), objective=run.objective, optimisation=run.optimisation, batch_size=32)
    assert run.objective.attack == uiat.NFGSM(threat=Linf(0.2))
    first, last = (row["train_adv_ce"] for row in trained.history)
    assert last < first


@pytest.mark.parametrize("gap", [1.0, 20.0, 40.0, 300.0])
def test_the_direction_of_a_tiny_gradient_is_one_too(gap) -> None:
    model, x = Linear(), torch.full((3, 1, 2, 2), 0.5)
    model.w.data[0] += gap  # the loss, and its gradient, fall off exponentially; 300 leaves none
    found = misalignment(model, x, torch.zeros(3, dtype=torch.int64), uiat.FGSM(threat=Linf(0.01)))
    assert found.abs().max() < 1e-5
