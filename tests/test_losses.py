"""Each loss against numbers worked out by hand and against the formula that its authors published."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from uiat import losses
from uiat.errors import UserError

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 0.0, math.log(2)]])
Y = torch.tensor([0, 1])


def random_logits(seed, *, n=32, k=10, scale=3.0, dtype=torch.float32):
    source = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, k, generator=source)
    return logits.to(dtype), torch.randint(k, (n,), generator=source)


seeds = st.integers(0, 2**31)

OF_LABELS = [losses.cross_entropy, losses.margin, losses.boosted_cross_entropy]


# --- by hand


def test_cross_entropy_by_hand():
    # log(e^2 + e + 1) - 2 and log(1 + 1 + 2) - 0
    expected = torch.tensor([math.log(math.e**2 + math.e + 1) - 2, math.log(4)])
    torch.testing.assert_close(losses.cross_entropy(LOGITS, Y), expected)


def test_label_smoothing_by_hand():
    # (1 - s) CE_y + s mean_k CE_k; in the second row -log p = log 4, log 4, log 2.
    value = losses.cross_entropy(LOGITS, Y, label_smoothing=0.3)[1].item()
    assert value == pytest.approx(0.7 * math.log(4) + 0.3 * (2 * math.log(4) + math.log(2)) / 3)


def test_kl_by_hand():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.25, 0.5]])
    # 0.5 log 2 + 0 + 0.25 log(1/2) = 0.25 log 2, and from the other side the same numbers in another order
    assert losses.kl(p.log(), q.log()).item() == pytest.approx(0.25 * math.log(2))
    r = torch.tensor([[0.5, 0.4, 0.1]])
    there, back = losses.kl(p.log(), r.log()).item(), losses.kl(r.log(), p.log()).item()
    assert there == pytest.approx(0.25 * math.log(0.25 / 0.4) + 0.25 * math.log(2.5))
    assert back == pytest.approx(0.4 * math.log(1.6) + 0.1 * math.log(0.4))


def test_margin_by_hand():
    assert losses.margin(LOGITS, Y).tolist() == pytest.approx([-1.0, math.log(2)])


def test_boosted_cross_entropy_by_hand():
    # Second row: p = (1/4, 1/4, 1/2), y = 1, the strongest rival has 1/2: log 4 + log 2.
    assert losses.boosted_cross_entropy(LOGITS, Y)[1].item() == pytest.approx(math.log(8))
    # Two rivals are equally strong, p = (1/2, 1/4, 1/4), y = 0: log 2 - log(3/4).
    tied = torch.tensor([[math.log(2), 0.0, 0.0]])
    assert losses.boosted_cross_entropy(tied, torch.tensor([0])).item() == pytest.approx(math.log(2) - math.log(0.75))


# --- against the authors' formulas


@given(seeds)
def test_cross_entropy_is_torchs(seed):
    logits, y = random_logits(seed)
    assert torch.equal(losses.cross_entropy(logits, y), F.cross_entropy(logits, y, reduction="none"))


@given(seeds)
def test_kl_is_that_of_trades(seed):
    """TRADES: nn.KLDivLoss(size_average=False)(F.log_softmax(model(x_adv), 1), F.softmax(model(x_natural), 1))."""
    adv, _ = random_logits(seed)
    nat, _ = random_logits(seed + 1)
    published = F.kl_div(F.log_softmax(adv, 1), F.softmax(nat, 1), reduction="none").sum(1)
    ours = losses.kl(losses.log_probabilities(nat), losses.log_probabilities(adv))
    torch.testing.assert_close(ours, published, rtol=1e-4, atol=1e-5)
    assert (ours > -1e-5).all()  # Gibbs' inequality


@given(seeds, st.sampled_from([0.3, 1.0, 3.0]))
def test_boosted_cross_entropy_is_that_of_mart(seed, scale):
    """MART: cross_entropy(logits, y) + nll_loss(log(1.0001 - probs + 1e-12), strongest class other than y)."""
    logits, y = random_logits(seed, scale=scale)
    probs = F.softmax(logits, 1)
    top = probs.argsort(dim=1)[:, -2:]
    rival = torch.where(top[:, -1] == y, top[:, -2], top[:, -1])
    published = F.cross_entropy(logits, y, reduction="none") + F.nll_loss(
        torch.log(1.0001 - probs + 1e-12), rival, reduction="none"
    )
    # Their 1e-4 changes the logarithm's argument 1 - p_rival by that much, and ours has no such term.
    rest = 1 - probs.gather(1, rival[:, None]).squeeze(1)
    gap = (losses.boosted_cross_entropy(logits, y) - published).abs()
    assert (gap <= 1.1e-4 / rest + 1e-5).all()


@given(seeds)
def test_margin_is_that_of_carlini_and_wagner(seed):
    """max{Z_i : i != t} - Z_t, with the target masked by a large number as most implementations do."""
    logits, y = random_logits(seed)
    one_hot = F.one_hot(y, 10).float()
    published = (logits - 1e4 * one_hot).amax(1) - (logits * one_hot).sum(1)
    torch.testing.assert_close(losses.margin(logits, y), published, rtol=0, atol=2e-3)
    assert torch.equal(losses.margin(logits, y) > 0, logits.argmax(1) != y)


# --- shape, precision, extremes, gradients


@pytest.mark.parametrize("loss", OF_LABELS)
def test_every_loss_is_per_example(loss):
    logits, y = random_logits(0)
    values = loss(logits, y)
    assert values.shape == y.shape
    torch.testing.assert_close(values, torch.cat([loss(logits[i : i + 1], y[i : i + 1]) for i in range(len(y))]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", OF_LABELS)
def test_half_precision_logits_are_raised_first(loss, dtype):
    logits, y = random_logits(0, dtype=dtype)
    values = loss(logits, y)
    assert values.dtype == torch.float32
    assert torch.equal(values, loss(logits.float(), y))


def test_half_precision_probabilities_sum_to_one():
    p = losses.log_probabilities(random_logits(0, k=100, dtype=torch.bfloat16)[0]).exp()
    assert p.dtype == torch.float32
    torch.testing.assert_close(p.sum(1), torch.ones(len(p)))


def test_double_precision_is_kept():
    logits, y = random_logits(0, dtype=torch.float64)
    assert {loss(logits, y).dtype for loss in OF_LABELS} == {torch.float64}


@pytest.mark.parametrize("loss", OF_LABELS)
@pytest.mark.parametrize("y", [0, 1])
def test_a_sure_prediction_gives_a_finite_loss_and_gradient(loss, y):
    logits = torch.tensor([[500.0, -500.0, 0.0]], requires_grad=True)
    value = loss(logits, torch.tensor([y]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert (value.item() > 100) == (y == 1)


@given(seeds)
def test_gradients_are_those_of_finite_differences(seed):
    logits, y = random_logits(seed, n=3, k=4, scale=1.0, dtype=torch.float64)
    logits.requires_grad_(True)
    for loss in OF_LABELS:
        assert torch.autograd.gradcheck(lambda v, loss=loss: loss(v, y), logits)


def test_kl_has_a_gradient_in_both_arguments():
    p, q = (random_logits(seed, n=3, k=4, dtype=torch.float64)[0].requires_grad_(True) for seed in (0, 1))
    assert torch.autograd.gradcheck(
        lambda p, q: losses.kl(losses.log_probabilities(p), losses.log_probabilities(q)), (p, q)
    )


# --- difference of logits ratio (Croce & Hein 2020)

FIVE = torch.tensor([[9.0, 2.0, 5.0, 1.0, 4.0]])  # in order: 9, 5, 4, 2, 1


def aimed_at_next(logits, y):
    """Targeted DLR as a loss of labels alone."""
    return losses.dlr_targeted(logits, y, (y + 1) % logits.shape[1])


DLR = [losses.dlr, aimed_at_next]


@pytest.mark.parametrize(("y", "expected"), [(0, (5 - 9) / (9 - 4)), (2, (9 - 5) / (9 - 4)), (3, (9 - 1) / (9 - 4))])
def test_dlr_by_hand(y, expected):
    assert losses.dlr(FIVE, torch.tensor([y])).item() == pytest.approx(expected)


@pytest.mark.parametrize(("y", "target", "expected"), [(0, 2, -4 / 6), (0, 3, -8 / 6), (2, 4, -1 / 6), (3, 0, 8 / 6)])
def test_targeted_dlr_by_hand(y, target, expected):
    # the denominator is 9 - (4 + 2) / 2 = 6
    assert losses.dlr_targeted(FIVE, torch.tensor([y]), torch.tensor([target])).item() == pytest.approx(expected)


def test_dlr_of_three_classes_by_hand():
    logits, y = torch.tensor([[5.0, 3.0, 2.0]]), torch.tensor([0])
    assert losses.dlr(logits, y).item() == pytest.approx((3 - 5) / (5 - 2))
    # the mean of the second and third logits: 5 - (3 + 2) / 2
    assert losses.dlr_targeted(logits, y, torch.tensor([1])).item() == pytest.approx(-2 / 2.5)
    assert losses.dlr_targeted(logits, y, torch.tensor([2])).item() == pytest.approx(-3 / 2.5)


@given(seeds)
def test_dlr_of_two_classes_is_the_margin(seed):
    logits, y = random_logits(seed, k=2)
    assert torch.equal(losses.dlr(logits, y), losses.margin(logits, y))
    assert torch.equal(losses.dlr_targeted(logits, y, 1 - y), losses.margin(logits, y))


@pytest.mark.parametrize("loss", [losses.dlr, lambda logits, y: losses.dlr_targeted(logits, y, y)])
def test_dlr_of_one_class_is_refused(loss):
    with pytest.raises(UserError, match="compares two classes, but the logits have 1"):
        loss(torch.zeros(2, 1), torch.tensor([0, 0]))


@given(seeds, st.integers(3, 12))
def test_dlr_is_the_ratio_of_sorted_logits(seed, k):
    logits, y = random_logits(seed, k=k, dtype=torch.float64)
    for value, z, label in zip(losses.dlr(logits, y).tolist(), logits.tolist(), y.tolist(), strict=True):
        order = sorted(z, reverse=True)
        rival = max(score for other, score in enumerate(z) if other != label)
        assert value == pytest.approx((rival - z[label]) / (order[0] - order[2]))


@given(seeds, st.integers(3, 10), st.sampled_from([1e-3, 10.0, 1e4]))
def test_dlr_knows_neither_scale_nor_shift(seed, k, scale):
    logits, y = random_logits(seed, k=k, dtype=torch.float64)
    for loss in DLR:
        torch.testing.assert_close(loss(scale * logits + 5, y), loss(logits, y))


@given(seeds, st.integers(2, 10))
def test_the_sign_of_dlr_tells_whether_the_prediction_is_wrong(seed, k):
    logits, y = random_logits(seed, k=k)
    assert torch.equal(losses.dlr(logits, y) > 0, logits.argmax(1) != y)


@given(seeds, st.integers(2, 6))
def test_dlr_always_has_a_gradient_towards_every_wrong_class(seed, k):
    """Also where y is the strongest class and the target the weakest: no ratio is constant."""
    logits, _ = random_logits(seed, n=4, k=k, scale=1.0, dtype=torch.float64)
    logits.requires_grad_(True)
    order = logits.detach().argsort(dim=1, descending=True)
    y = order[:, 0]
    values = [losses.dlr(logits, y), *(losses.dlr_targeted(logits, y, order[:, j]) for j in range(1, k))]
    for value in values:
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert (gradient.abs().amax(dim=1) > 0).all()
    assert torch.autograd.gradcheck(lambda v: losses.dlr(v, y), logits)
    assert torch.autograd.gradcheck(lambda v: losses.dlr_targeted(v, y, order[:, k - 1]), logits)


@pytest.mark.parametrize("k", [2, 3, 4, 10])
@pytest.mark.parametrize("loss", DLR)
def test_dlr_of_equal_logits_is_zero_and_its_gradient_finite(loss, k):
    logits = torch.full((2, k), 3.0, requires_grad=True)
    value = loss(logits, torch.tensor([0, 1]))
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.tolist() == [0, 0]
    assert gradient.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", DLR)
def test_dlr_raises_half_precision_logits_first(loss, dtype):
    logits, y = random_logits(0, dtype=dtype)
    assert loss(logits, y).dtype == torch.float32
    assert torch.equal(loss(logits, y), loss(logits.float(), y))


@pytest.mark.parametrize("loss", DLR)
def test_dlr_is_per_example(loss):
    logits, y = random_logits(0)
    alone = torch.cat([loss(logits[i : i + 1], y[i : i + 1]) for i in range(len(y))])
    assert torch.equal(loss(logits, y), alone)
