"""The projected-gradient loop and its settings: closed forms, what always holds, what it costs, what it refuses."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from support.balls import length, slack
from support.helpers import (
    Binary,
    Blocks,
    Failing,
    Passes,
    assert_untouched,
    batch,
    cnn,
    eval_loss,
    interior,
    mlp,
    pgd,
    snapshot,
)
from support.searches import linear
from uiat import FGSM, FGSMRS, L2, PGD, Linf
from uiat.errors import UserError
from uiat.threat import L1

EPSILON = 0.1
SIGN = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(4, 1, 1, 1)  # the loss of class 0 rises along w, that of class 1 falls


def binary() -> tuple[Binary, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A linear model, interior images, labels, and the direction in which each image's loss rises."""
    w = torch.randn(64)
    return Binary(w), interior(4), torch.tensor([0, 1, 0, 1]), SIGN * w.view(1, 1, 8, 8)


# --- closed form on a linear model

LINF_SETTINGS = [
    pytest.param(PGD(threat=Linf(EPSILON), step_size=0.03, steps=10), id="pgd"),
    pytest.param(PGD(threat=Linf(EPSILON), step_size=0.03, steps=10, start="none"), id="pgd from x"),
    pytest.param(PGD(threat=Linf(EPSILON), step_size=0.03, steps=10, start="gaussian"), id="gaussian"),
    pytest.param(PGD(threat=Linf(EPSILON), step_size=0.03, steps=10, loss="margin"), id="margin"),
    pytest.param(PGD(threat=Linf(EPSILON), step_size=0.03, steps=10, keep="best", restarts=3), id="best of 3"),
    pytest.param(PGD(threat=Linf(EPSILON), step_size=0.03, steps=10, batchnorm="train"), id="train mode"),
    pytest.param(FGSM(threat=Linf(EPSILON)), id="fgsm"),
    pytest.param(PGD(threat=Linf(EPSILON), step_size=2 * EPSILON, steps=1), id="one step from anywhere"),
]


@pytest.mark.parametrize("descend", [False, True])
@pytest.mark.parametrize("attack", LINF_SETTINGS)
def test_linf_reaches_the_corner_exactly(attack, descend):
    model, x, y, rising = binary()
    expected = x - EPSILON * rising.sign() if descend else x + EPSILON * rising.sign()
    assert torch.equal(replace(attack, descend=descend)(model, x, y), expected)


@pytest.mark.parametrize("descend", [False, True])
@pytest.mark.parametrize("steps", [4, 20])
def test_l2_reaches_the_end_of_the_radius_along_the_gradient(steps, descend):
    model, x, y, rising = binary()
    attack = PGD(threat=L2(0.5), step_size=0.2, steps=steps, start="none", descend=descend)
    unit = rising / rising.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    expected = x + (-0.5 if descend else 0.5) * unit
    torch.testing.assert_close(attack(model, x, y), expected, rtol=0, atol=1e-6)


def test_steps_that_fall_short_add_up():
    model, x, y, rising = binary()
    attack = PGD(threat=Linf(EPSILON), step_size=0.02, steps=3, start="none")
    torch.testing.assert_close(attack(model, x, y), x + 0.06 * rising.sign(), rtol=0, atol=1e-6)


def test_many_classes_reach_their_corner_too():
    model, x, y = Blocks(4), interior(4), torch.arange(4)
    x_adv = pgd(10)(model, x, y)
    assert torch.equal(x_adv, x + 0.1 * model.w[y].view_as(x).sign())


def test_at_the_edge_of_the_range_it_stops_there():
    model, _, y, rising = binary()
    x = torch.full((4, 1, 8, 8), 0.95)
    x_adv = PGD(threat=Linf(EPSILON), step_size=0.05, steps=5)(model, x, y)
    assert torch.equal(x_adv, torch.where(rising > 0, torch.tensor(1.0), x - EPSILON))


def test_fgsm_rs_is_one_projected_step_of_a_quarter_more_than_epsilon():
    """Wong et al. 2020: delta ~ U(-epsilon, epsilon); delta <- clip(delta + 1.25 epsilon sign(grad))."""
    model, x, y, rising = binary()
    attack = FGSMRS(threat=Linf(EPSILON))
    assert (attack.steps, attack.start, attack.step_size) == (1, "uniform", pytest.approx(1.25 * EPSILON))
    delta = torch.empty_like(x).uniform_(-EPSILON, EPSILON, generator=torch.Generator().manual_seed(7))
    expected = x + (delta + 1.25 * EPSILON * rising.sign()).clamp(-EPSILON, EPSILON)
    x_adv = attack(model, x, y, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=1e-6)
    assert not torch.equal(x_adv, x + EPSILON * rising.sign())  # starts far on the other side fall short


def test_pgd_works_under_l1():
    model, x, y, distances = linear(20)
    w = model.w.detach().abs()
    reach = distances["L1"].median().item() * w.amax().item() / w.topk(4).values.mean().item()  # four pixels a step
    attack = PGD(threat=L1(reach), step_size=reach / 4, steps=10)
    x_adv = attack(model, x, y)
    assert (attack.threat.length(x_adv - x) <= reach * (1 + 1e-5)).all()
    assert 0.2 < (model(x_adv).argmax(1) != y).float().mean() < 0.8


# --- what always holds

MODELS = {"linear": lambda: Blocks(4), "mlp": mlp, "cnn": cnn}
settings = st.builds(
    PGD,
    threat=st.one_of(st.sampled_from([0.001, 8 / 255, 0.3]).map(Linf), st.sampled_from([0.05, 0.5, 3.0]).map(L2)),
    step_size=st.sampled_from(["2/255", 0.1, 0.5]),
    steps=st.integers(1, 3),
    restarts=st.integers(1, 2),
    loss=st.sampled_from(["ce", "margin", "kl"]),
    start=st.sampled_from(["uniform", "gaussian"]),
    keep=st.sampled_from(["last", "best"]),
    descend=st.booleans(),
    batchnorm=st.sampled_from(["eval", "train"]),
)
dtypes = st.sampled_from([torch.float32, torch.float64, torch.bfloat16])


@given(settings, st.sampled_from(sorted(MODELS)), dtypes, st.booleans(), st.integers(1, 5))
def test_always_in_the_ball_finite_and_the_model_untouched(attack, name, dtype, training, n):
    model = MODELS[name]().to(dtype).train(training)
    x, y = batch(n).x.to(dtype), batch(n).y
    before, image = snapshot(model), x.clone()
    x_adv = attack(model, x, y)
    assert_untouched(model, before)
    assert torch.equal(x, image)
    assert (x_adv.dtype, x_adv.shape, x_adv.requires_grad) == (dtype, x.shape, False)
    assert x_adv.isfinite().all()
    assert 0 <= x_adv.min() <= x_adv.max() <= 1
    distance = length(attack.threat, x_adv.double() - x.double())
    assert (distance <= float(attack.threat.epsilon) + slack(attack.threat, x)).all()


@given(settings, dtypes, st.sampled_from([(1, 8, 8), (3, 8, 12), (2, 9, 9)]), st.booleans())
def test_the_best_iterate_moves_the_loss_the_right_way(attack, dtype, shape, descend):
    attack = replace(attack, loss="ce", keep="best", descend=descend, start="none", batchnorm="eval", restarts=1)
    model = cnn(image_shape=shape).to(dtype)
    x, y = batch(6, image_shape=shape).x.to(dtype), batch(6).y
    before, after = eval_loss(model, x, y), eval_loss(model, attack(model, x, y), y)
    assert (after <= before if descend else after >= before).all()
    if float(attack.threat.epsilon) >= 8 / 255 and dtype != torch.bfloat16:
        assert after.sum() < before.sum() if descend else after.sum() > before.sum()


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("attack", [pgd(3), pgd(loss="kl", batchnorm="train"), pgd(1, keep="best", restarts=2)])
def test_the_model_is_untouched_after_an_exception_inside_it(attack, at):
    model = Failing(cnn(), at=at)
    model.inner.head.eval()
    model.inner.head.bias.requires_grad_(False)
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="boom"):
        attack.perturb(model, batch().x, batch().y)
    assert_untouched(model, before)


def test_gradients_that_were_there_before_are_left_alone():
    model, b = cnn(), batch()
    F.cross_entropy(model(b.x), b.y).backward()
    before = snapshot(model)
    pgd()(model, b.x, b.y)
    assert_untouched(model, before)


def test_it_works_under_no_grad_and_on_images_that_need_a_gradient():
    model, b = cnn(), batch()
    expected = pgd(start="none")(model, b.x, b.y)
    with torch.no_grad():
        assert torch.equal(pgd(start="none")(model, b.x, b.y), expected)
    x_adv = pgd(start="none")(model, b.x.clone().requires_grad_(True), b.y)
    assert torch.equal(x_adv, expected)
    assert not x_adv.requires_grad


def test_images_do_not_influence_each_other():
    model, b = cnn(), batch(8)
    attack = pgd(5, start="none")
    together = attack(model, b.x, b.y)
    alone = torch.cat([attack(model, b.x[i : i + 1], b.y[i : i + 1]) for i in range(8)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


# --- starts


def test_a_generator_makes_it_reproducible():
    model, b = cnn(), batch()

    def run(seed):
        return pgd(1, restarts=2)(model, b.x, b.y, generator=torch.Generator().manual_seed(seed))

    state = torch.get_rng_state()
    first = run(3)
    assert torch.equal(torch.get_rng_state(), state)  # torch's own generator is not drawn from
    assert torch.equal(first, run(3))
    assert not torch.equal(first, run(4))


def test_without_a_generator_torchs_seed_decides():
    model, b = cnn(), batch()
    torch.manual_seed(5)
    first = pgd(1)(model, b.x, b.y)
    assert not torch.equal(first, pgd(1)(model, b.x, b.y))
    torch.manual_seed(5)
    assert torch.equal(first, pgd(1)(model, b.x, b.y))


@pytest.mark.parametrize("start", ["none", "uniform", "gaussian"])
def test_each_start_is_what_it_says(start):
    """Steps of size zero leave the start as it is."""
    x = interior(200, margin=0.4)
    delta = pgd(1, start=start, step_size=0)(Blocks(4), x, torch.arange(200) % 4) - x
    expected = {"none": 0.0, "uniform": 0.1 / 3**0.5, "gaussian": 0.001}[start]
    assert delta.std().item() == pytest.approx(expected, rel=0.05, abs=1e-9)
    assert delta.abs().max() <= 0.1 + 1e-6


def test_kl_from_the_image_itself_is_refused():
    with pytest.raises(UserError, match="no gradient at x itself"):
        PGD(loss="kl", start="none")


def test_kl_climbs_the_divergence_from_the_natural_prediction():
    model, b = cnn().eval(), batch()
    x_adv = pgd(5, loss="kl", start="gaussian")(model, b.x, b.y)
    with torch.no_grad():
        p, q = model(b.x).log_softmax(1), model(x_adv).log_softmax(1)
        near = model(pgd(5, loss="kl", start="gaussian", step_size=0)(model, b.x, b.y)).log_softmax(1)
    climbed, start = (F.kl_div(r, p, log_target=True, reduction="none").sum(1) for r in (q, near))
    assert (climbed > 100 * start.abs().clamp_min(1e-7)).all()
    same = [pgd(5, loss="kl")(model, b.x, y, generator=torch.Generator().manual_seed(0)) for y in (b.y, b.y.flip(0))]
    assert torch.equal(*same)  # labels play no part


# --- best-so-far and restarts


def overshooting() -> tuple[nn.Module, torch.Tensor, torch.Tensor, PGD]:
    """A loss that a step of full length jumps over, so the last iterate is often not the best."""
    model = mlp().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(6)
    b = batch(24)
    return model, b.x, b.y, PGD(threat=Linf(0.2), step_size=0.3, steps=3)


@pytest.mark.parametrize("descend", [False, True])
def test_more_effort_is_never_worse(descend):
    model, x, y, attack = overshooting()
    attack = replace(attack, descend=descend)

    def gain(**changes):
        x_adv = replace(attack, **changes)(model, x, y, generator=torch.Generator().manual_seed(0))
        loss = eval_loss(model, x_adv, y)
        return -loss if descend else loss

    last, best, restarts, both = gain(), gain(keep="best"), gain(restarts=4), gain(restarts=4, keep="best")
    for more, less in [(best, last), (restarts, last), (both, best), (both, restarts)]:
        assert (more >= less).all()
        assert (more > less).any()


def test_restarts_choose_by_the_attacks_own_loss():
    model, x, y, attack = overshooting()
    attack = replace(attack, loss="margin")

    def margin(restarts):
        x_adv = replace(attack, restarts=restarts)(model, x, y, generator=torch.Generator().manual_seed(0))
        logits = model(x_adv).detach()
        others = logits.masked_fill(F.one_hot(y, 4).bool(), -torch.inf).amax(1)
        return others - logits.gather(1, y[:, None]).squeeze(1)

    assert (margin(5) >= margin(1)).all()


# --- cost


@pytest.mark.parametrize(
    ("changes", "forwards", "backwards"),
    [
        ({}, 10, 10),
        ({"keep": "best"}, 11, 10),
        ({"loss": "kl"}, 11, 10),
        ({"restarts": 3}, 33, 30),  # one more forward each, to choose by
        ({"restarts": 3, "keep": "best"}, 33, 30),
        ({"restarts": 3, "loss": "kl"}, 34, 30),  # the natural prediction once for all of them
        ({"descend": True, "start": "none"}, 10, 10),
    ],
)
def test_what_an_attack_costs(changes, forwards, backwards):
    model, b = Passes(cnn()), batch()
    pgd(10, **changes).perturb(model, b.x, b.y)
    assert dict(model.forwards) == {"crafting": forwards}
    assert dict(model.backwards) == {"crafting": backwards}


def test_no_gradient_of_a_parameter_is_ever_computed():
    """A hook on the weight's use in the graph would see one; frozen, the weight is not in the graph at all."""
    model, b = mlp(), batch()
    seen = []
    model[1].register_forward_hook(lambda m, _, out: seen.append((m.weight.requires_grad, out.requires_grad)))
    pgd(2).perturb(model, b.x, b.y)
    assert seen == [(False, True), (False, True)]


# --- what is refused

LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ((batch().x * 255).to(torch.uint8), batch().y, "divide by 255"),
        (batch().x * 255, batch().y, "divide by 255"),
        (batch().x - 0.5, batch().y, "normalises in its first layer"),
        (batch().x * float("nan"), batch().y, "not finite"),
        (batch().x, batch().y.int(), "int64"),
        (batch().x, batch().y[:3], "one for each image"),
        (batch().x, batch().y + 1, r"labels must be in 0\.\.3, but run from 1 to 4"),
        (batch().x, batch().y - 1, r"labels must be in 0\.\.3, but run from -1 to 2"),
        (batch().x[:0], batch().y[:0], "empty"),
    ],
)
def test_images_and_labels_that_cannot_be_meant_are_refused(x, y, says):
    with pytest.raises(UserError, match=says):
        pgd()(LINEAR, x, y)


class Returning(nn.Module):
    """A model that does something to its logits."""

    def __init__(self, change):
        super().__init__()
        self.inner, self.change = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), change

    def forward(self, x):
        return self.change(self.inner(x))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda logits: {"scores": logits}, "tensor of logits, not dict"),
        (lambda logits: (logits, logits), "tensor of logits, not tuple"),
        (lambda logits: logits.argmax(1), r"returns shape \(1,\)"),
        (lambda logits: logits[:, :, None], r"returns shape \(1, 4, 1\)"),
        (lambda logits: logits.detach(), "no gradient with respect to its input"),
        (lambda logits: logits.round().detach() + 1, "no gradient with respect to its input"),
    ],
)
def test_a_model_that_does_not_return_logits_is_refused(change, says):
    model = Returning(change)
    before = snapshot(model)
    with pytest.raises(UserError, match=says):
        pgd()(model, batch().x, batch().y)
    assert_untouched(model, before)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"steps": -1}, "steps must be at least 0"),
        ({"restarts": 0}, "restarts must be at least 1"),
        ({"step_size": -0.1}, "step_size must not be negative"),
        ({"step_size": "two"}, "step_size must be a number"),
        ({"threat": "Linf:8/255/2"}, "threat: epsilon must be a number"),
    ],
)
def test_settings_out_of_range_are_refused(fields, says):
    with pytest.raises(UserError, match=says):
        PGD(**fields)


def test_settings_are_a_value_that_can_be_compared_and_changed():
    assert PGD() == PGD(threat=Linf(8 / 255), step_size=2 / 255, steps=10)
    assert replace(PGD(), steps=20) == PGD(steps=20)
    assert hash(PGD()) == hash(PGD(step_size="2/255"))
