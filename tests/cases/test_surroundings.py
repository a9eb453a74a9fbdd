"""What the caller has set, what a model does to its input, and what was tried before the work: cases from the field."""

import warnings

import pytest
import torch
from torch import nn

import uiat
from uiat import Batch, Linf, UserError
from uiat.system.surroundings import neutral_surroundings

THREAT = Linf(0.1)


@pytest.fixture(scope="module")
def images():
    torch.manual_seed(0)
    return torch.rand(24, 1, 8, 8), torch.arange(24) % 4


def net(classes=4):
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, classes)).eval()


def evaluate(model, images, **options):
    return uiat.evaluate(model, *images, threat=THREAT, attacks=["fgsm", "pgd-3"], **options)


def settings():
    """All that a caller may have set and that has to be as it was."""
    return {
        "autocast": torch.is_autocast_enabled("cpu"),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "precision": torch.get_float32_matmul_precision(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "random": torch.get_rng_state().tolist(),
        "filters": list(warnings.filters),
    }


class Setting:
    """A setting of torch that is no context manager."""

    def __init__(self, change, back):
        self.change, self.back = change, back

    def __enter__(self):
        self.change()

    def __exit__(self, *_):
        self.back()


SURROUNDINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "default dtype": lambda: Setting(
        lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)
    ),
    "default device": lambda: torch.device("meta"),
    "products in bf16": lambda: Setting(
        lambda: torch.set_float32_matmul_precision("medium"), lambda: torch.set_float32_matmul_precision("highest")
    ),
    "deterministic": lambda: Setting(
        lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False)
    ),
}


@pytest.mark.parametrize("name", SURROUNDINGS)
def test_surroundings_change_no_verdict_and_are_as_they_were(name, images):
    model = net()
    plain = evaluate(model, images)
    with SURROUNDINGS[name]():
        before = settings()
        result = evaluate(model, images)
        assert settings() == before
    assert (result.broken_by, result.accuracy) == (plain.broken_by, plain.accuracy)
    assert len(set(plain.broken_by)) > 1


@pytest.mark.parametrize("name", ["autocast", "no_grad", "default dtype"])
def test_surroundings_change_no_training(name, images):
    def weights(model):
        optimisation = uiat.Optimisation(epochs=1)
        trained = uiat.fit(model, images, validation_data=images, batch_size=12, optimisation=optimisation)
        return trained.model.state_dict()

    plain, model = weights(net()), net()
    with SURROUNDINGS[name]():
        found = weights(model)
    assert all(torch.equal(plain[key], found[key]) for key in plain)


def test_a_model_made_in_inference_mode_is_refused_and_images_made_there_are_not(images):
    with torch.inference_mode():
        model, x = net(), images[0].clone()
    with pytest.raises(UserError, match=r"'1.weight' was made inside torch.inference_mode"):
        evaluate(model, images)
    assert evaluate(net(), (x, images[1])).broken_by == evaluate(net(), images).broken_by


@neutral_surroundings()
def fail():
    assert not torch.is_autocast_enabled("cpu")
    torch.set_num_threads(2)
    raise ZeroDivisionError


def test_the_surroundings_are_put_back_after_an_error():
    before = settings()
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ZeroDivisionError):
        fail()
    assert settings() == before


class InPlace(nn.Module):
    """Shifts the images that it is given."""

    def __init__(self):
        super().__init__()
        self.net = net()

    def forward(self, x):
        x -= 0.5
        return self.net(x)


def enter(entry, model, x, y):
    """Give a model and images to one of the public functions."""
    if entry == "evaluate":
        evaluate(model, (x, y))
    elif entry == "fit":
        optimisation = uiat.Optimisation(epochs=1)
        uiat.fit(model, (x, y), validation_data=(x, y), batch_size=12, optimisation=optimisation)
    else:
        step_of(model)(Batch(x, y, torch.arange(len(y))))


@pytest.mark.parametrize("entry", ["evaluate", "fit", "step"])
def test_a_model_that_works_in_place_is_named_and_the_images_are_left_alone(entry, images):
    x, y = images[0].clone(), images[1]
    with pytest.raises(UserError, match="the model changes the images that it is given"):
        enter(entry, InPlace(), x, y)
    assert torch.equal(x, images[0])


def step_of(model, optimizer=None, shape=(1, 8, 8)):
    optimizer = optimizer or torch.optim.SGD(model.parameters(), lr=0.1)
    return uiat.make_step(model, uiat.UIAT(), optimizer, num_classes=4, image_shape=shape, num_examples=24)


class Returns(nn.Module):
    """Gives its logits in another form, always or in train mode alone."""

    def __init__(self, form, *, only_training=False):
        super().__init__()
        self.net, self.form, self.only_training = net(), form, only_training

    def forward(self, x):
        logits = self.net(x)
        return self.form(logits) if self.training or not self.only_training else logits


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            Returns(lambda z: {"scores": z}),
            'returns a dict, not a tensor of logits; put the logits under the key "logits"',
        ),
        (Returns(lambda z: (z, z), only_training=True), "returns a tuple in train mode"),
        (Returns(lambda z: z.detach(), only_training=True), "no gradient in train mode"),
        (Returns(lambda z: z * float("nan"), only_training=True), "NaN or infinite logits"),
        (net(3), "the model has 3 classes and the data 4"),
        (net(1), "the model has 1 classes and the data 4"),
    ],
    ids=["dict", "pair in training", "detached in training", "NaN in training", "few classes", "one output"],
)
@pytest.mark.parametrize("entry", ["fit", "step"])
def test_a_model_is_tried_as_it_will_be_used(entry, model, says, images):
    with pytest.raises(UserError, match=says):
        enter(entry, model, *images)


def test_a_step_refuses_what_it_cannot_work_with(images):
    model, batch = net(), Batch(*images, torch.arange(24))
    with pytest.raises(UserError, match=r"images have shape \(1, 8, 8\), but image_shape is \(8, 8, 1\)"):
        step_of(model, shape=(8, 8, 1))(batch)
    with pytest.raises(UserError, match="LBFGS asks for a closure"):
        step_of(model, torch.optim.LBFGS(model.parameters()))(batch)
    with pytest.raises(UserError, match="none of the model's parameters"):
        step_of(model, torch.optim.SGD(net().parameters(), lr=0.1))(batch)


def test_a_step_refuses_what_is_no_batch(images, unchecked):
    with pytest.raises(UserError, match="not a tuple"):
        step_of(net())(images)


def test_a_part_that_was_set_aside_stays_as_it_is(images):
    body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten())
    body.requires_grad_(False).eval()
    model = nn.Sequential(body, nn.BatchNorm1d(144), nn.Linear(144, 4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    uiat.fit(model, images, validation_data=images, batch_size=12, optimisation=uiat.Optimisation(epochs=1))
    changed = {
        name.split(".")[0] for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert changed == {"1", "2"}


@pytest.mark.parametrize("shape", [(24, 64), (24, 8, 8)])
def test_self_checks_that_cannot_run_cost_the_verdict_and_not_the_result(shape, images, unchecked):
    x, y = images[0].reshape(shape), images[1]
    result = uiat.evaluate(net(), x, y, threat=THREAT, attacks=["pgd-3", "apgd-ce"])
    assert result.verdict.startswith(
        "not checked: the self-checks ended with UserError: the Square Attack needs images"
    )
    assert result.accuracy["worst"] <= result.accuracy["clean"]


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("form", ["script", "freeze", "trace"])
def test_torchscript_is_evaluated_as_the_module_is(form, images):
    model = net()
    made = torch.jit.trace(model, images[0]) if form == "trace" else torch.jit.script(model)
    made = torch.jit.freeze(made) if form == "freeze" else made
    assert evaluate(made, images).broken_by == evaluate(model, images).broken_by
