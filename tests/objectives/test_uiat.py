"""UIAT by its formula, and its options one by one: one-off, ramp, momentum, BatchNorm."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from support.helpers import batch, cnn, gradients, mlp, pgd
from support.objectives import INSTANCE, ONE_OFF, UNIVERSAL, divergence, probabilities, state_of, uiat
from uiat import PGDAT, Batch, total
from uiat.errors import UserError
from uiat.inverse import InverseState


@pytest.mark.parametrize("kl", ["inverse-adversarial", "adversarial-inverse"])
@pytest.mark.parametrize("inverse", [UNIVERSAL, INSTANCE])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_uiat_by_formula(kl, inverse, smoothing):
    model, b = cnn().eval(), batch()
    objective = uiat(kl=kl, inverse=inverse, weight=2.5, label_smoothing=smoothing)
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    terms = objective.loss(model, examples)
    adv, inv = model(examples.x_adv), model(examples.x_inv)
    torch.testing.assert_close(terms["adv_ce"], F.cross_entropy(adv, b.y, label_smoothing=smoothing, reduction="none"))
    pair = (inv.softmax(1), adv.softmax(1)) if kl == "inverse-adversarial" else (adv.softmax(1), inv.softmax(1))
    torch.testing.assert_close(terms["inverse_kl"], 2.5 * divergence(*pair), rtol=1e-4, atol=1e-6)
    other = divergence(*reversed(pair))
    assert not torch.allclose(terms["inverse_kl"], 2.5 * other, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("kl", ["inverse-adversarial", "adversarial-inverse"])
@pytest.mark.parametrize("on", [True, False])
def test_the_gradient_through_the_inverse_branch(kl, on):
    """On and off differ in the parameter gradients exactly as autograd says with and without a detached target."""
    model, b = cnn().eval(), batch()
    objective = uiat(kl=kl, inverse=replace(UNIVERSAL, start="sign", step_size=1e-9), inverse_gradient=on)
    state = state_of(objective)
    examples = objective.perturb(model, b, state, epoch=0)
    found = gradients(total(objective.loss(model, examples)).mean(), model)

    def expected(detached):
        adv = model(examples.x_adv)
        inv = model((b.x + state.z[b.y]).clamp(0, 1))
        inv = inv.detach() if detached else inv
        first, second = (inv, adv) if kl == "inverse-adversarial" else (adv, inv)
        kl_term = divergence(first.softmax(1), second.softmax(1))
        return gradients((F.cross_entropy(adv, b.y, reduction="none") + 3.5 * kl_term).mean(), model)

    for mine, same, other in zip(found, expected(not on), expected(on), strict=True):
        torch.testing.assert_close(mine, same, rtol=1e-3, atol=1e-5)
        assert not torch.allclose(mine, other, rtol=1e-2, atol=1e-6)


def test_the_detached_target_is_that_of_the_shared_forward_pass():
    """p(x_inv) at z before its update, from the pass that gave z's gradient."""
    model, b = cnn(), batch()
    objective = uiat(inverse=replace(UNIVERSAL, start="sign"), inverse_gradient=False)
    state = state_of(objective)
    z = state.z.clone()
    examples = objective.perturb(model, b, state, epoch=0)
    assert examples.x_inv is None
    assert examples.share is None
    torch.testing.assert_close(examples.target, probabilities(model, (b.x + z[b.y]).clamp(0, 1)))
    assert not torch.equal(state.z, z)


# --- one-off and the ramp


def test_before_its_epoch_one_off_is_the_base_method_bit_for_bit():
    objective, base = uiat(inverse=ONE_OFF, label_smoothing=0.1), PGDAT(attack=pgd(), label_smoothing=0.1)
    terms = []
    for method in (objective, base):
        model, state = cnn(), state_of(method)
        torch.manual_seed(5)
        terms.append(method.loss(model, method.perturb(model, batch(), state, epoch=0)))
        assert not any(value.any() for value in state.buffers())
    assert terms[0].keys() == terms[1].keys() == {"adv_ce", "correct"}
    assert torch.equal(terms[0]["adv_ce"], terms[1]["adv_ce"])
    assert [objective.lambda_at(epoch) for epoch in range(3)] == [0.0, 3.5, 3.5]


@pytest.mark.parametrize("inverse_gradient", [True, False])
def test_after_its_epoch_the_frozen_perturbation_is_used_and_stays(inverse_gradient):
    model, b = cnn(), batch()
    objective = uiat(inverse=ONE_OFF, inverse_gradient=inverse_gradient)
    state = state_of(objective)
    objective.perturb(model, b, state, epoch=1)
    z = state.z.clone()
    assert z.any()
    for epoch in (2, 3):
        examples = objective.perturb(model, b, state, epoch=epoch)
        assert torch.equal(state.z, z)
        x_inv = (b.x + z[b.y]).clamp(0, 1)
        if inverse_gradient:
            assert torch.equal(examples.x_inv, x_inv)
        else:
            torch.testing.assert_close(examples.target, probabilities(model, x_inv))
        assert "inverse_kl" in objective.loss(model, examples)


@pytest.mark.parametrize(
    ("ramp", "expected"),
    [(0, [2.0, 2.0, 2.0, 2.0, 2.0]), (1, [0.0, 2.0, 2.0, 2.0, 2.0]), (4, [0.0, 0.5, 1.0, 1.5, 2.0])],
)
def test_the_ramp_of_lambda(ramp, expected):
    objective, model, b = uiat(weight=2.0, ramp_epochs=ramp), cnn().eval(), batch()
    assert [objective.lambda_at(epoch) for epoch in range(5)] == expected
    full = None
    for epoch in (4, 1, 0):
        torch.manual_seed(1)
        term = objective.loss(model, objective.perturb(model, b, state_of(objective), epoch=epoch))["inverse_kl"]
        full = term if full is None else full
        torch.testing.assert_close(term, full * expected[epoch] / 2.0)


# --- momentum of the predictions


class Remembered:
    """METHOD's section 5 as dictionaries and loops: p_bar <- gamma p_bar + (1 - gamma) p, a first visit setting it."""

    def __init__(self, gamma, *, by_class):
        self.gamma, self.by_class, self.table = gamma, by_class, {}

    def visit(self, b, p):
        """The remembered rows before and after this batch, one for each image (None where there was none)."""
        keys = [int(k) for k in (b.y if self.by_class else b.index)]
        before = [self.table.get(k) for k in keys]
        news = {}
        for key, row in zip(keys, p, strict=True):
            news.setdefault(key, []).append(row)
        for key, rows in news.items():
            mean = sum(rows) / len(rows)
            old = self.table.get(key)
            self.table[key] = mean if old is None else self.gamma * old + (1 - self.gamma) * mean
        return before, [self.table[k] for k in keys]


def batches(n=5):
    """Batches of different images, with classes missing from some and one example coming back in all."""
    for seed in range(n):
        source = torch.Generator().manual_seed(seed)
        y = torch.randint(4 if seed % 2 else 3, (6,), generator=source)
        index = torch.cat([torch.tensor([7]), torch.randperm(7, generator=source)[:5]])
        yield Batch(torch.rand(6, 1, 8, 8, generator=source), y, index)


@pytest.mark.parametrize("momentum", ["class", "example"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("inverse_gradient", [True, False])
def test_momentum_against_a_slow_reference(momentum, gamma, inverse_gradient):
    model = cnn()
    objective = uiat(
        inverse=replace(UNIVERSAL, start="sign"), momentum=momentum, gamma=gamma, inverse_gradient=inverse_gradient
    )
    state, memory = state_of(objective, n=8), Remembered(gamma, by_class=momentum == "class")
    assert state.p_bar.shape == ((4, 4) if momentum == "class" else (8, 4))
    for b in batches():
        z = state.z.clone()
        examples = objective.perturb(model, b, state, epoch=0)
        before, after = memory.visit(b, probabilities(model, (b.x + z[b.y]).clamp(0, 1)))
        if inverse_gradient:
            expected = torch.stack([torch.zeros(4) if row is None else row for row in before])
            torch.testing.assert_close(examples.target, expected)
            shares = [0.0 if row is None else gamma for row in before]
            torch.testing.assert_close(examples.share, torch.tensor(shares)[:, None])
        else:
            torch.testing.assert_close(examples.target, torch.stack(after))
    for key, row in memory.table.items():
        torch.testing.assert_close(state.p_bar[key], row)
    assert state.visited.sum() == len(memory.table)
    assert not state.p_bar[~state.visited].any()


@pytest.mark.parametrize("momentum", ["class", "example"])
@pytest.mark.parametrize("kl", ["inverse-adversarial", "adversarial-inverse"])
def test_the_gradient_flows_through_the_share_of_the_current_prediction(momentum, kl):
    model, objective = cnn().eval(), uiat(momentum=momentum, gamma=0.7, kl=kl, weight=5.0)
    state = state_of(objective, n=8)
    first, second = list(batches(2))
    objective.perturb(model, first, state, epoch=0)
    before, known = state.p_bar.clone(), state.visited.clone()
    examples = objective.perturb(model, second, state, epoch=0)
    found = gradients(total(objective.loss(model, examples)).mean(), model)
    rows = second.y if momentum == "class" else second.index

    def expected(*, through):
        adv, inv = model(examples.x_adv), model(examples.x_inv).softmax(1)
        share = 0.7 * known[rows].float()[:, None]
        target = share * before[rows] + (1 - share) * (inv if through else inv.detach())
        pair = (target, adv.softmax(1)) if kl == "inverse-adversarial" else (adv.softmax(1), target)
        return gradients((F.cross_entropy(adv, second.y, reduction="none") + 5 * divergence(*pair)).mean(), model)

    for mine, same, other in zip(found, expected(through=True), expected(through=False), strict=True):
        torch.testing.assert_close(mine, same, rtol=1e-3, atol=1e-5)
        assert not torch.allclose(mine, other, rtol=1e-2, atol=1e-6)


@given(st.floats(0, 0.99), st.integers(0, 2**31), st.booleans())
def test_what_is_remembered_is_a_distribution(gamma, seed, by_class):
    source = torch.Generator().manual_seed(seed)
    state = InverseState(None, gradient_momentum=False, rows=6, num_classes=5)
    for _ in range(4):
        p = torch.randn(4, 5, generator=source).softmax(1)
        rows = torch.randint(6, (4,), generator=source) if by_class else torch.randperm(6, generator=source)[:4]
        state.remember(rows, p, gamma, by_class=by_class)
    torch.testing.assert_close(state.p_bar.sum(1), state.visited.float())
    assert (state.p_bar >= 0).all()


def test_without_momentum_nothing_is_kept():
    assert set(dict(state_of(uiat()).named_buffers())) == {"z"}
    assert set(dict(state_of(uiat(inverse=INSTANCE)).named_buffers())) == set()
    with_momentum = uiat(inverse=replace(UNIVERSAL, gradient_momentum=0.3), momentum="class")
    assert set(dict(state_of(with_momentum).named_buffers())) == {"z", "g", "p_bar", "visited"}


def test_per_example_momentum_needs_the_number_of_examples():
    with pytest.raises(UserError, match="give num_examples"):
        uiat(momentum="example").init(num_classes=4, image_shape=(1, 8, 8))


# --- BatchNorm


def running_mean_after(objective, model, examples):
    objective.loss(model, examples)
    return model.body.stage1.norm.running_mean.clone(), int(model.body.stage1.norm.num_batches_tracked)


@pytest.mark.parametrize(("policy", "passes"), [("both", 2), ("adversarial", 1)])
def test_which_passes_move_the_running_statistics(policy, passes):
    objective, model, b = uiat(batchnorm=policy), cnn(), batch()
    examples = objective.perturb(model, b, state_of(objective), epoch=0)
    tracked = int(model.body.stage1.norm.num_batches_tracked)
    reference = cnn()
    reference(examples.x_adv)
    if policy == "both":
        reference(examples.x_inv)
    mean, count = running_mean_after(objective, model, examples)
    assert count == tracked + passes
    torch.testing.assert_close(mean, reference.body.stage1.norm.running_mean)


def test_the_batchnorm_policy_changes_no_loss():
    values = []
    for policy in ("both", "adversarial"):
        model, objective = cnn(), uiat(batchnorm=policy)
        torch.manual_seed(2)
        examples = objective.perturb(model, batch(), state_of(objective), epoch=0)
        values.append(objective.loss(model, examples)["inverse_kl"])
    assert torch.equal(*values)


def test_the_mode_of_crafting_is_that_of_the_attack_for_the_inverse_adversary_too():
    b = batch()
    found = []
    for mode in ("eval", "train"):
        torch.manual_seed(0)
        model = cnn()
        objective = uiat(attack=pgd(1, start="none", batchnorm=mode), inverse_gradient=False)
        found.append(objective.perturb(model, b, state_of(objective), epoch=0).target)
        with torch.no_grad():
            expected = model.train(mode == "train")(b.x).softmax(1)  # z is still zero in the shared pass
        torch.testing.assert_close(found[-1], expected)
    assert not torch.allclose(*found)


# --- precision


@pytest.mark.parametrize("momentum", ["none", "class", "example"])
@pytest.mark.parametrize("inverse_gradient", [True, False])
@pytest.mark.parametrize("kl", ["inverse-adversarial", "adversarial-inverse"])
def test_sure_predictions_give_finite_gradients(momentum, inverse_gradient, kl):
    """Logits of a few hundred: probabilities underflow to zero, whose logarithm must not reach the loss."""
    model = mlp()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(60)
    objective = uiat(momentum=momentum, inverse_gradient=inverse_gradient, kl=kl)
    state = state_of(objective)
    for _ in range(2):
        examples = objective.perturb(model, batch(), state, epoch=0)
        terms = objective.loss(model, examples)
        assert all(value.isfinite().all() for value in terms.values())
        assert all(g.isfinite().all() for g in gradients(total(terms).mean(), model))
    assert terms["adv_ce"].max() > 50
