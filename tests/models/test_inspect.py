"""What is asked of a model: that it maps images to logits of the right classes, and is left untouched."""

import pytest
import torch
from torch import nn

from support.models import digits, refusal
from uiat.errors import UserError
from uiat.models import check_model
from uiat.models.inspect import classes_of, device_of, is_differentiable


class Returns(nn.Module):
    """A net with BatchNorm and a frozen part, whose logits go through `change`."""

    def __init__(self, change) -> None:
        super().__init__()
        self.net = digits("small-cnn", width=4)
        self.frozen = nn.BatchNorm2d(1).eval()
        self.net.head.weight.requires_grad_(False)
        self.change = change

    def forward(self, x):
        return self.change(self.net(self.frozen(x)))


def fail(logits):
    raise RuntimeError("inside the model")


def snapshot(model: nn.Module) -> tuple[list[bool], list[bool], dict[str, torch.Tensor]]:
    state = {key: value.clone() for key, value in model.state_dict().items()}
    return [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()], state


def assert_untouched(model: nn.Module, before) -> None:
    modes, flags, state = snapshot(model)
    assert modes == before[0]
    assert flags == before[1]
    assert all(torch.equal(value, before[2][key]) for key, value in state.items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z: {"scores": z}, 'returns a dict, not a tensor of logits; put the logits under the key "logits"'),
        (
            lambda z: (z, z),
            "returns a tuple, not a tensor of logits; wrap the model so that its forward returns the one",
        ),
        (lambda z: None, "returns a NoneType"),
        (lambda z: z.argmax(1), "returns torch.int64; it must return logits"),
        (lambda z: z[:, :9], "has 9 classes and the data 10; build it with num_classes=10"),
        (lambda z: z[:, 0], "returns shape (4,) for 4 images; it must be (batch, classes) = (4, 10)"),
        (lambda z: z[:, :, None, None], "returns shape (4, 10, 1, 1) for 4 images"),
        (lambda z: z[:1], "returns shape (1, 10) for 4 images"),
        (lambda z: z / 0, "NaN or infinite"),
        (lambda z: z * float("nan"), "NaN or infinite"),
        (lambda z: z.softmax(1), "returns probabilities; return logits"),
        (lambda z: z.bfloat16().softmax(1), "returns probabilities; return logits"),
    ],
)
def test_check_model_refuses(change, message, training):
    model = Returns(change).train(training)
    model.frozen.eval()
    before = snapshot(model)
    assert message in refusal(check_model, model, torch.rand(4, 1, 8, 8), 10)
    assert_untouched(model, before)


@pytest.mark.parametrize("change", [lambda z: z, lambda z: z.log_softmax(1), lambda z: 0 * z, lambda z: z.bfloat16()])
def test_check_model_accepts(change):
    model = Returns(change).train()
    before = snapshot(model)
    check_model(model, torch.rand(4, 1, 8, 8), 10)
    assert_untouched(model, before)


def test_check_model_passes_on_what_the_model_raises():
    model = Returns(fail).train()
    model.frozen.eval()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="inside the model"):
        check_model(model, torch.rand(4, 1, 8, 8), 10)
    assert_untouched(model, before)


def test_check_model_runs_on_a_few_images_in_evaluation_mode():
    seen = []
    model = Returns(lambda z: seen.append((len(z), model.training, z.requires_grad)) or z).train()
    check_model(model, torch.rand(100, 1, 8, 8), 10)
    assert seen == [(8, False, False)]


def test_check_model_needs_an_image():
    assert "give at least one" in refusal(check_model, digits("small-cnn"), torch.rand(0, 1, 8, 8), 10)


def test_device_classes_and_gradient_of_a_model():
    x = torch.rand(2, 1, 8, 8)
    assert device_of(nn.Flatten()) == torch.device("cpu")
    with torch.device("meta"), pytest.raises(UserError, match="on the meta device: it has no weights"):
        device_of(nn.Linear(2, 2))
    assert classes_of(Returns(lambda z: z), x) == 10
    assert is_differentiable(Returns(lambda z: z), x)
    assert not is_differentiable(Returns(lambda z: z.detach()), x)
    assert not is_differentiable(Returns(lambda z: torch.from_numpy(z.numpy())), x)
    with pytest.raises(RuntimeError, match="inside the model"):
        is_differentiable(Returns(fail), x)
    assert "must return a tensor of logits, not tuple" in refusal(classes_of, Returns(lambda z: (z, z)), x)
    assert "logits must be (1, classes)" in refusal(classes_of, Returns(lambda z: z[:, :, None]), x)
