"""A model that returns an object or a dictionary with `logits` gives what it gives with the logits alone."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import uiat
from support.helpers import batch, mlp, pgd
from uiat.models import check_model
from uiat.models.modes import frozen
from uiat.models.outputs import logits_of, logits_only
from uiat.training.step import make_step

X, Y = batch(12).x, batch(12).y
WRAPS = {"dict": lambda z: {"loss": None, "logits": z}, "object": lambda z: SimpleNamespace(logits=z, hidden=z)}


class Wrapped(nn.Module):
    """A model whose output holds its logits."""

    def __init__(self, inner, wrap):
        super().__init__()
        self.inner, self.wrap = inner, wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


@pytest.fixture(params=WRAPS)
def pair(request):
    """(a model, the same one behind an output that holds its logits)."""
    torch.manual_seed(0)
    plain, other = mlp().eval(), mlp().eval()
    other.load_state_dict(plain.state_dict())
    return plain, Wrapped(other, WRAPS[request.param])


@pytest.mark.slow
def test_it_is_attacked_and_evaluated_alike(pair):
    plain, wrapped = pair
    check_model(wrapped, X, 4)
    ours, theirs = (uiat.evaluate(m, X, Y, threat=uiat.Linf(0.1), attacks=["pgd-3", "fab"]) for m in pair)
    assert ours.accuracy == theirs.accuracy
    assert torch.equal(*(pgd(start="none")(m, X, Y) for m in (plain, wrapped)))
    assert not isinstance(wrapped(X), torch.Tensor)  # outside it is as it was
    assert not wrapped._forward_hooks


def test_it_is_trained_alike(pair):
    for model in pair:
        torch.manual_seed(3)
        objective = uiat.Trades(attack=pgd(loss="kl", start="gaussian"))
        step = make_step(
            model,
            objective,
            torch.optim.SGD(model.parameters(), lr=0.1),
            num_classes=4,
            image_shape=(1, 8, 8),
            awp=0.005,
        )
        step(uiat.Batch(X, Y), epoch=0)
    plain, wrapped = pair
    assert all(torch.equal(value, wrapped.inner.state_dict()[name]) for name, value in plain.state_dict().items())


def test_fit_gives_back_the_users_own_module(pair):
    trained = uiat.fit(
        pair[1], (X, Y), objective=uiat.PGDAT(attack=pgd(1)), batch_size=4, optimisation=uiat.Optimisation(epochs=1)
    )
    assert trained.model is pair[1]
    assert sorted(trained.model.state_dict()) == sorted(f"inner.{name}" for name in pair[0].state_dict())


def test_a_plain_model_is_left_alone_once_it_was_seen():
    model = mlp().eval()
    for hooks in (1, 0):
        with frozen(model):
            assert len(model._forward_hooks) == hooks
            model(X)
    model.train()
    with logits_only(model):  # in another mode it may return something else
        assert len(model._forward_hooks) == 1


@pytest.mark.parametrize("output", [{"scores": torch.zeros(1)}, (torch.zeros(1),), None])
def test_what_holds_no_logits_stays_as_it_is(output):
    assert logits_of(output) is output
