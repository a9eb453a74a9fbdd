"""Each loss against numbers worked out by hand and against the formula that its authors published."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from uiat import losses

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
