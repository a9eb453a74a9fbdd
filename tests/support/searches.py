"""Every search attack in small settings, and how the tests run one."""

from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from hypothesis import strategies as st
from torch import nn

from support.helpers import Binary, interior, mlp
from uiat import L1, L2, Linf
from uiat.attacks import APGD, FAB, FMN, Noise, SparseAPGD, Square, Transfer
from uiat.attacks.random_numbers import keys
from uiat.attacks.search import advance, begin
from uiat.inverse import UniversalAttack
from uiat.models.modes import frozen

LINF = st.sampled_from([0.001, 8 / 255, 0.3]).map(Linf)
L2S = st.sampled_from([0.05, 0.5, 3.0]).map(L2)
L1S = st.sampled_from([0.01, 1.0, 30.0]).map(L1)
DRAWS = st.sampled_from([1, 1, 2])  # of the mean over answers
LOSSES = ["ce", "dlr", "targeted-dlr"]
SINGLE, DOUBLE = torch.float32, torch.float64


@dataclass(frozen=True)
class Kind:
    """A search: how it is made, which threat models and settings it has, what is peculiar to it."""

    make: type
    threats: tuple  # with radii at which some images of `curved` break and some do not
    anything: st.SearchStrategy = field(repr=False)  # of attacks with any settings
    settings: dict = field(default_factory=dict)
    later: int | None = None  # an attempt that begins elsewhere
    dtypes: tuple = (SINGLE,)
    starts_at_image: bool = True  # x_adv is x until the image breaks

    def __call__(self, threat, iterations, **settings):
        return self.make(threat=threat, iterations=iterations, **{**self.settings, **settings})


def of(make, threats, **settings):
    return st.builds(make, threat=threats, iterations=st.integers(1, 6), **settings)


def transfer(**settings):
    torch.manual_seed(1)
    return Transfer(source=mlp(), **settings)


def universal(*, threat, iterations, shape=(1, 8, 8), **settings):
    """Perturbations in the ball, as many as there are iterations, in place of fitted ones."""
    z = threat.noise(torch.zeros(iterations, *shape), generator=torch.Generator().manual_seed(iterations))
    return UniversalAttack(threat=threat, z=z[:, None], **settings)


KINDS = {
    "apgd": Kind(
        APGD,
        (Linf(0.05), L2(0.25)),
        of(APGD, LINF | L2S, loss=st.sampled_from(LOSSES), draws=DRAWS, rho=st.sampled_from([0.5, 0.75, 1.0])),
        later=1,
        dtypes=(SINGLE, DOUBLE, torch.bfloat16),
        starts_at_image=False,
    ),
    "apgd-l1": Kind(
        SparseAPGD,
        (L1(1.0),),
        of(SparseAPGD, L1S, loss=st.sampled_from(LOSSES), shrinking=st.booleans(), draws=DRAWS),
        later=1,
    ),
    "fab": Kind(
        FAB,
        (Linf(0.03), L2(0.2), L1(1.0)),
        of(
            FAB,
            LINF | L2S | L1S,
            targets=st.integers(1, 9),
            restarts=st.integers(1, 2),
            alpha_max=st.sampled_from([0.0, 0.1, 1.0]),
            eta=st.sampled_from([1.0, 1.05, 3.0]),
            beta=st.sampled_from([0.0, 0.9, 1.0]),
            targeted=st.booleans(),
            draws=DRAWS,
        ),
        settings={"restarts": 2},
        later=4,
        dtypes=(SINGLE, DOUBLE),
    ),
    "fmn": Kind(
        FMN,
        (Linf(0.03), L2(0.2), L1(1.0)),
        of(
            FMN,
            LINF | L2S | L1S,
            step_size=st.sampled_from([0.1, 1.0]),
            gamma=st.sampled_from([0.05, 0.3]),
            draws=DRAWS,
        ),
        later=1,
    ),
    "noise": Kind(Noise, (Linf(0.3), L2(1.5), L1(8.0)), of(Noise, LINF | L2S | L1S, draws=DRAWS), later=1),
    "square": Kind(
        Square,
        (Linf(0.1), L2(1.5), L1(15.0)),
        of(
            Square,
            LINF | L2S | L1S,
            p_init=st.sampled_from([0.05, 0.8, 1.0]),
            loss=st.sampled_from(["margin", "ce"]),
            stretched=st.booleans(),
            draws=DRAWS,
        ),
        later=1,
        dtypes=(SINGLE, DOUBLE, torch.bfloat16),
        starts_at_image=False,
    ),
    "transfer": Kind(
        transfer,
        (Linf(0.05), L2(0.25), L1(1.0)),
        of(
            transfer,
            LINF | L2S | L1S,
            loss=st.sampled_from(["margin", "ce"]),
            momentum=st.sampled_from([0.0, 1.0]),
            draws=DRAWS,
        ),
        later=1,
    ),
    "universal": Kind(universal, (Linf(0.3), L2(1.5), L1(30.0)), of(universal, LINF | L2S | L1S, draws=DRAWS)),
}


def held(model):
    """The model frozen and in eval mode, if it is a module."""
    return frozen(model) if isinstance(model, nn.Module) else nullcontext()


def start(attack, model, x, y, *, attempt=0, seed=0, index=None):
    """The state before the first iteration; `index` is the images' position in their data set."""
    index = torch.arange(len(y)) if index is None else index
    with held(model):
        return begin(attack, model, x, y, keys(seed, index), attempt=attempt)


def iterated(attack, model, points, first=0, last=None):
    """The state after iterations on a whole batch, which no image leaves."""
    with held(model):
        for i in range(first, attack.iterations if last is None else last):
            points = attack.iterate(model, points, i)
    return points


def run(attack, model, x, y, **how):
    """One attempt, no image leaving the batch."""
    return iterated(attack, model, start(attack, model, x, y, **how))


def attacked(attack, model, x, y, *, seed=0):
    """All attempts, each on the images that are still robust: (broken, x_adv)."""
    broken, x_adv = torch.zeros(len(y), dtype=torch.bool), x.clone()
    with held(model), torch.no_grad():
        for attempt in range(attack.attempts(model(x[:1]).shape[1])):
            left = (~broken).nonzero().flatten()
            if len(left) == 0:
                break
            points = begin(attack, model, x[left], y[left], keys(seed, left), attempt=attempt)
            points = advance(attack, model, points, 0, attack.iterations)
            broken[left], x_adv[left] = points["broken"], points["x_adv"]
    return broken, x_adv


def robust_images(attack, model, x, y, **how):
    """Which images are robust to all attempts; the examples of the others are in the ball."""
    broken, x_adv = attacked(attack, model, x, y, **how)
    assert (attack.threat.length(x_adv - x) <= float(attack.threat.epsilon) * (1 + 1e-4)).all()
    return ~broken


class Rowwise(nn.Module):
    """A curved model whose sums are taken row by row, so that an image's bits do not depend on the batch's size."""

    def __init__(self, classes=5, shape=(1, 8, 8)):
        super().__init__()
        pixels = int(torch.tensor(shape).prod())
        self.u, self.v = nn.Parameter(torch.randn(6, pixels)), nn.Parameter(torch.randn(classes, 6))

    def forward(self, x):
        hidden = (x.flatten(1)[:, None] * self.u).sum(-1)
        return ((hidden + hidden.square() / 8)[:, None] * self.v).sum(-1)


def curved(n=12):
    """A curved model, images, and what the model says of them."""
    model = Rowwise()
    x = interior(n)
    return model, x, model(x).argmax(1)


def linear(n=20):
    """A linear model of two classes, images close to its plane, their predictions, their distances in every norm.

    Close, because in L1 one pixel goes the whole way, and should not meet the end of its range.
    """
    model, x = Binary(torch.randn(64) / 20), interior(n)
    w = model.w.detach()
    x = x - 0.9 * ((x.flatten(1) @ w) / w.square().sum()).view(-1, 1, 1, 1) * w.view(1, 1, 8, 8)
    logits = model(x).detach()
    gap = (logits[:, 1] - logits[:, 0]).abs()
    return model, x, logits.argmax(1), {"Linf": gap / w.abs().sum(), "L2": gap / w.norm(), "L1": gap / w.abs().amax()}


class Function(nn.Module):
    """A model that is any function of the images."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def constant(classes):
    """A model whose logits do not depend on the image, although their gradient is there, and zero."""
    return Function(lambda x: 0 * x.flatten(1).sum(1, keepdim=True) + torch.zeros(classes))


def same(one, two):
    """True if two states are equal to the last bit."""
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
