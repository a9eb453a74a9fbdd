"""The training step: every method learns with it, and it does what a loop written by hand does, no more and no less.

Options of how it is computed change nothing about what is computed.
"""

import shutil
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch
from torch import nn

from support import tiny
from support.helpers import Passes, batch, cnn, mlp, pgd
from support.objectives import OBJECTIVES, UNIVERSAL, uiat
from uiat import PGD, PGDAT, UIAT, Batch, Examples, Linf, Mart, Standard, Trades, make_step, models, total
from uiat.errors import UserError
from uiat.objectives.base import Stateless
from uiat.objectives.networks import teacher_method
from uiat.training.averaging import make_average, refresh_statistics, update_average
from uiat.training.awp import adversarial_weights
from uiat.training.pass_count import count_passes

SHAPE = (1, 8, 8)


def step_of(model, objective, *, rate=0.1, n=12, **options):
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    return make_step(model, objective, optimizer, num_classes=4, image_shape=SHAPE, num_examples=n, **options)


# --- every objective x AWP x averaging learns


@cache
def synthetic() -> tuple[torch.Tensor, torch.Tensor]:
    """64 noisy textures: rows, columns, a chessboard, plain; an attack of 0.1 cannot turn one into another."""
    y = torch.arange(64) % 4
    row, column = (2.0 * (torch.arange(8) % 2) - 1).view(8, 1), (2.0 * (torch.arange(8) % 2) - 1).view(1, 8)
    texture = torch.stack([row.expand(8, 8), column.expand(8, 8), row * column, torch.zeros(8, 8)])[:, None]
    noise = torch.randn(64, *SHAPE, generator=torch.Generator().manual_seed(0))
    return (0.5 + 0.3 * texture[y] + 0.05 * noise).clamp(0, 1), y


def accuracy(model: nn.Module, *, robust: bool) -> float:
    x, y = synthetic()
    x = pgd(5, threat=Linf(0.05), step_size=0.02)(model, x, y) if robust else x
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(1) == y).float().mean().item()


@cache
def teacher_of(method: str) -> nn.Module:
    """A network that was trained by the method, for those that ask a teacher."""
    return train(OBJECTIVES[method])[1]


def train(objective, *, epochs=8, average=None, **options):
    """(losses by step, the trained or averaged model)."""
    teacher = None if teacher_method(objective) is None else teacher_of(teacher_method(objective))
    torch.manual_seed(0)
    model = models.build("small-cnn", num_classes=4, image_shape=SHAPE, width=4)
    step = step_of(model, objective, n=64, teacher=teacher, **options)
    mean = None if average is None else make_average(model, average, decay=0.6)
    x, y = synthetic()
    values = []
    for epoch in range(epochs):
        for part in torch.randperm(64, generator=torch.Generator().manual_seed(epoch)).split(32):
            terms = step(Batch(x[part], y[part], part), epoch=epoch)
            values.append(sum(v.item() for name, v in terms.items() if name != "correct"))
            if mean is not None:
                update_average(mean, model)
    if mean is not None:
        model = mean.module
    refresh_statistics(model, x.split(32))  # so few steps leave running statistics far behind
    return values, model


# Losses that cannot fall to 0: 1.5 at least, entropies of labels and predictions.
BOUNDED = ("mlcat", "adr", "dkl")


@pytest.mark.parametrize(("awp", "average"), [(0.0, None), (0.01, "ema")])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_it_learns(name, awp, average):
    values, model = train(OBJECTIVES[name], awp=awp, average=average)
    if name not in BOUNDED:
        assert sum(values[-2:]) < 0.8 * sum(values[:2])
    # Chance is 0.25.
    assert accuracy(model, robust=False) > 0.9
    assert accuracy(model, robust=True) > 0.7


def test_bf16_learns_too():
    values, model = train(uiat(), precision="bf16")
    assert sum(values[-2:]) < 0.8 * sum(values[:2])
    assert accuracy(model, robust=True) > 0.6
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_two_trainings_of_one_seed_are_identical():
    first, second = (train(uiat(momentum="example"), epochs=3) for _ in range(2))
    assert first[0] == second[0]
    for a, b in zip(first[1].parameters(), second[1].parameters(), strict=True):
        assert torch.equal(a, b)


# --- against a loop by hand


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())


@pytest.mark.parametrize(("awp", "clip"), [(0.0, None), (0.05, None), (0.05, 0.1)])
@pytest.mark.parametrize("name", ["pgd-at", "uiat", "example momentum"])
def test_a_step_is_what_a_loop_by_hand_does(name, awp, clip):
    objective = OBJECTIVES[name]
    mine, theirs = cnn(), cnn()
    # To the bit; with the copy of the network it is so to rounding (tests/speed/test_inner_model.py).
    step = step_of(mine, objective, awp=awp, clip_norm=clip, fold=False)
    torch.manual_seed(4)
    for seed in (1, 2, 3):
        step(batch(seed=seed), epoch=1)

    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    state = objective.init(num_classes=4, image_shape=SHAPE, num_examples=12)
    torch.manual_seed(4)
    for seed in (1, 2, 3):
        examples = objective.perturb(theirs, batch(seed=seed), state, epoch=1)

        def loss(examples=examples):
            return total(objective.loss(theirs, examples)).mean()

        optimizer.zero_grad()
        if awp:
            with adversarial_weights(theirs, loss, gamma=awp):
                loss().backward()
        else:
            loss().backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        optimizer.step()
    assert same_weights(mine, theirs)
    assert same_weights(step.state, state)


def test_it_returns_the_means_of_the_terms():
    model, b = cnn(), batch()
    objective = uiat()
    terms = step_of(model, objective)(b, epoch=0)
    assert terms.keys() == {"adv_ce", "inverse_kl", "correct"}
    for value in terms.values():
        assert (value.shape, value.dtype, value.requires_grad) == ((), torch.float32, False)
    assert 0 <= terms["correct"] <= 1
    assert terms["correct"] * 12 == pytest.approx(round(terms["correct"].item() * 12))


def test_it_trains_in_train_mode_whatever_the_mode_was():
    model = cnn().eval()
    before = int(model.body.stage1.norm.num_batches_tracked)
    step_of(model, PGDAT(attack=pgd()))(batch())
    assert model.training
    assert int(model.body.stage1.norm.num_batches_tracked) == before + 1


def test_old_gradients_do_not_count():
    clean, dirty = mlp(), mlp()
    dirty.load_state_dict(clean.state_dict())
    for p in dirty.parameters():
        p.grad = torch.full_like(p, 100.0)
    for model in (clean, dirty):
        step = step_of(model, Standard())
        torch.manual_seed(0)
        step(batch())
    assert same_weights(clean, dirty)


@pytest.mark.parametrize(("epoch", "passes"), [(1, 1), (2, 2), (3, 2)])
def test_weight_perturbation_begins_in_its_epoch(epoch, passes):
    model = Passes(mlp())
    step = step_of(model, PGDAT(attack=pgd()), awp=0.01, awp_from_epoch=2)
    step.check(batch())  # its passes are no passes of a step
    model.forwards.clear(), model.backwards.clear()
    step(batch(), epoch=epoch)
    assert model.backwards["training"] == passes


def test_an_attack_finds_its_examples_once_with_weight_perturbation_too():
    model = Passes(mlp())
    step = step_of(model, uiat(attack=pgd(10)), awp=0.01)
    step.check(batch())
    model.forwards.clear(), model.backwards.clear()
    step(batch())
    assert dict(model.forwards) == {"crafting": 11, "training": 4}


def test_weights_and_state_are_kept_when_the_loss_raises():
    """Also under weight perturbation: the moved weights are not what a guard then finds."""

    @dataclass(frozen=True)
    class Broken:
        name: str = "broken"
        init = staticmethod(lambda **_: Stateless())
        perturb = staticmethod(lambda model, b, state, *, epoch: Examples(b.x, b.y))
        calls: tuple = ()

        def loss(self, model, examples):
            if model.head.weight.grad_fn is None and not torch.equal(model.head.weight, start):
                raise RuntimeError("boom")
            return {"ce": model(examples.x).logsumexp(1)}

    model = cnn()
    start = model.head.weight.detach().clone()
    before = {name: value.clone() for name, value in model.named_parameters()}
    with pytest.raises(RuntimeError, match="boom"):
        step_of(model, Broken(), awp=0.1)(batch())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


# --- one-off, step by step


def test_one_off_over_epochs():
    model = cnn()
    step = step_of(model, uiat(inverse=replace(UNIVERSAL, epoch=1), momentum="class"))
    history = []
    for epoch in (0, 0, 1, 1, 2, 3):
        terms = step(batch(seed=epoch), epoch=epoch)
        history.append((sorted(terms), step.state.z.clone(), bool(step.state.visited.any())))
    names, zs, visited = zip(*history, strict=True)
    assert names[0] == names[1] == ["adv_ce", "correct"]
    assert all(n == ["adv_ce", "correct", "inverse_kl"] for n in names[2:])
    assert not zs[0].any()
    assert not zs[1].any()
    assert not torch.equal(zs[2], zs[1])
    assert not torch.equal(zs[3], zs[2])
    assert torch.equal(zs[4], zs[3])
    assert torch.equal(zs[5], zs[3])
    assert visited == (False, False, True, True, True, True)


def test_absent_classes_stay_as_they_are_while_training():
    step = step_of(cnn(), UIAT(attack=pgd(), inverse=UNIVERSAL))
    step(batch())
    z = step.state.z.clone()
    b = batch()
    step(Batch(b.x, b.y % 2, b.index))
    assert torch.equal(step.state.z[2:], z[2:])
    assert not torch.equal(step.state.z[:2], z[:2])


# --- what is refused


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda b: replace(b, x=b.x * 255), "divide by 255"),
        (lambda b: replace(b, x=(b.x * 255).byte()), "divide by 255"),
        (lambda b: replace(b, x=b.x + float("nan")), "not finite"),
        (lambda b: replace(b, y=b.y + 1), r"labels must be in 0\.\.3"),
        (lambda b: replace(b, y=b.y.float()), "int64"),
        (lambda b: replace(b, y=b.y[:3]), "one for each image"),
    ],
)
def test_a_bad_first_batch_is_refused_and_nothing_is_trained(change, says):
    model = mlp()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step = step_of(model, PGDAT(attack=pgd()))
    for _ in range(2):
        with pytest.raises(UserError, match=says):
            step(change(batch()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@dataclass(frozen=True)
class Wrong:
    """A method of one's own with the classic mistake: `softmax(...)[:, y]` is (B, B)."""

    name: str = "wrong"
    threat: None = None

    def init(self, *, num_classes, image_shape, num_examples=None):
        return Stateless()

    def perturb(self, model, batch, state, *, epoch):
        return Examples(batch.x, batch.y)

    def loss(self, model, examples):
        return {"ce": -model(examples.x).log_softmax(1)[:, examples.y]}


def test_a_loss_of_the_wrong_shape_is_refused():
    with pytest.raises(UserError, match=r"loss term 'ce' must have shape \(12,\), not \(12, 12\)"):
        step_of(mlp(), Wrong())(batch())


def test_per_example_momentum_needs_the_number_of_examples():
    with pytest.raises(UserError, match="num_examples"):
        step_of(mlp(), uiat(momentum="example"), n=None)


def test_the_state_is_where_the_model_is():
    step = step_of(mlp().to("meta"), uiat(momentum="class"))
    assert {value.device.type for value in step.state.buffers()} == {"meta"}
    assert step.objective.attack.threat == Linf(0.1)


# --- how it is computed


def plain_net(*, classes: int = 4) -> nn.Module:
    """Without BatchNorm and dropout, so that a batch is the sum of its parts."""
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, classes))


def residual() -> nn.Module:
    torch.manual_seed(2)
    return models.build("preact-resnet8", num_classes=4, image_shape=SHAPE, width=8)


def stepped(model, objective, count=2, **options):
    """Weights, state and terms after some steps."""
    step = step_of(model, objective, **options)
    torch.manual_seed(1)
    for _ in range(count):
        terms = step(batch())
    return {**model.state_dict(), **dict(step.state.named_buffers()), **terms}


def assert_equal(one, other, **tolerance):
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], msg=lambda text, name=name: f"{name}: {text}", **tolerance)


FIXED = pgd(start="none")  # each part of a batch would draw numbers of its own


@pytest.mark.parametrize("parts", [2, 5, 100])
def test_an_accumulated_step_is_the_step_of_the_batch(parts):
    objective = PGDAT(attack=FIXED)
    for awp in (0.0, 0.05):  # the weights are perturbed by the gradient of the whole batch
        whole, in_parts = (stepped(plain_net(), objective, accumulate=k, awp=awp) for k in (1, parts))
        assert_equal(whole, in_parts, atol=1e-5, rtol=1e-4)


def test_accumulation_fits_every_objective_and_clipping():
    values = stepped(plain_net(), uiat(momentum="example"), accumulate=3, clip_norm=0.1, awp=0.01)
    assert all(value.isfinite().all() for value in values.values())


@pytest.mark.parametrize("awp", [0.0, 0.01])
@pytest.mark.parametrize("name", ["pgd-at", "uiat", "trades"])
def test_recomputing_changes_no_bit(name, awp):
    kept, recomputed = (stepped(residual(), OBJECTIVES[name], awp=awp, recompute=r) for r in (False, True))
    assert_equal(kept, recomputed, atol=0, rtol=0)


# Their losses pass the model in a context that has ended when the backward pass computes it again.
WITH_CONTEXTS = {
    "squeeze": OBJECTIVES["squeeze"],
    "dhat": OBJECTIVES["dhat"],
    "uiat": uiat(batchnorm="adversarial"),
    "grad-align": PGDAT(attack=pgd(), alignment=0.2),
}


@pytest.mark.parametrize("awp", [0.0, 0.01])
@pytest.mark.parametrize("name", WITH_CONTEXTS)
def test_recomputing_is_in_the_modes_of_the_first_pass(name, awp):
    objective = WITH_CONTEXTS[name]
    more = {"awp": awp, "teacher": residual() if teacher_method(objective) else None, "count": 1}
    kept, recomputed = (stepped(residual(), objective, recompute=r, **more) for r in (False, True))
    # The gradients of three passes are added up in another order.
    assert_equal(kept, recomputed, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["lbgat", "adr", "ard", "hat", "dhat", "uiat"])
def test_models_and_teachers_may_return_a_dictionary_of_logits(name):
    objective, values = OBJECTIVES[name], []
    for form in (nn.Sequential, Wrapped):
        teacher = form(cnn(seed=7)) if teacher_method(objective) else None
        values.append(stepped(form(cnn()), objective, teacher=teacher))
    assert_equal(*values, atol=0, rtol=0)


class Wrapped(nn.Sequential):
    """A network that returns more than its logits, as those of some libraries do."""

    def forward(self, x):
        return {"loss": None, "logits": super().forward(x)}


def test_what_the_optimizer_does_not_hold_neither_piles_up_nor_weakens_a_clipped_step():
    heads = []
    for trained in (True, False):
        torch.manual_seed(0)
        model = mlp()
        model[1].requires_grad_(trained)  # wants a gradient, but the optimiser has the head alone
        optimizer = torch.optim.SGD(model[4].parameters(), lr=0.1)
        step = make_step(model, PGDAT(attack=FIXED), optimizer, num_classes=4, image_shape=SHAPE, clip_norm=0.01)
        for _ in range(4):
            step(batch())
        heads.append(model[4].weight.detach().clone())
    assert torch.equal(*heads)


def test_soft_labels_of_a_later_batch_are_refused_where_the_first_had_none():
    step, b = step_of(cnn(), OBJECTIVES["mart"]), batch()
    step(b)
    with pytest.raises(UserError, match="mart needs one class an image"):
        step(replace(b, soft_labels=torch.full((12, 4), 0.25)))


class Between(nn.Module):
    """A network whose forward pass does something between its features and its head."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Flatten(), nn.Linear(64, 8)), nn.Linear(8, 4)

    def features(self, x):
        return self.body(x)

    def forward(self, x):
        return self.head(self.features(x).relu())


def test_features_and_head_that_are_another_model_are_refused():
    objective = uiat(inverse=replace(UNIVERSAL, regulariser="feature"))
    with pytest.raises(UserError, match=r"model.head\(model.features\(x\)\), which are not those of model\(x\)"):
        step_of(Between(), objective)(batch())
    step_of(Between(), uiat())(batch())  # nothing reads them
    step_of(cnn(), objective)(batch())


def test_kernels_are_tried_inside_the_step_alone():
    model, seen = plain_net(), []
    model[0].register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    for tried in (True, False):
        stepped(model, PGDAT(attack=FIXED), count=1, try_kernels=tried)
        assert set(seen) == {tried}
        assert not torch.backends.cudnn.benchmark
        seen.clear()


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_inner_problems_train_alike_with_one_graph():
    """The same weights up to rounding, and no new compilation when modes go back and forth between the passes."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    weights = []
    for compiled in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))
        step = step_of(model, uiat(), compile=compiled)
        for epoch in range(3):
            torch.manual_seed(epoch)
            step(batch(12), epoch=epoch)
        weights.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    torch.testing.assert_close(weights[0], weights[1], atol=1e-4, rtol=1e-3)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match="no no-such-compiler: install one"):
        step_of(mlp(), OBJECTIVES["pgd-at"], compile=True)


# --- replays: Free adversarial training

FREE = PGD(threat=Linf(0.1), step_size=0.1, steps=0, start="uniform")


def test_replays_are_free_adversarial_training():
    """Algorithm 1 of Shafahi et al. 2019 from a random start, written out."""
    values = stepped(plain_net(), PGDAT(attack=FREE), count=1, replays=3)
    model, x, y = plain_net(), batch().x, batch().y
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.manual_seed(1)
    x_adv = FREE.perturb(model, x, y)
    for _ in range(3):
        x_adv = x_adv.detach().requires_grad_()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x_adv), y)
        loss.backward()
        optimizer.step()
        x_adv = (x_adv + 0.1 * x_adv.grad.sign() - x).clamp(-0.1, 0.1).add(x).clamp(0, 1)
    torch.testing.assert_close(values["adv_ce"], loss)
    assert_equal({name: values[name] for name in model.state_dict()}, dict(model.state_dict()), atol=1e-5, rtol=1e-4)


def test_replays_move_towards_a_higher_loss():
    model = plain_net()
    ce = []
    for replays in (1, 4):
        step = step_of(model, PGDAT(attack=FREE), rate=0.0, replays=replays)
        torch.manual_seed(1)
        ce.append(step(batch())["adv_ce"])
    assert ce[1] > ce[0]


@pytest.mark.parametrize(
    "objective",
    [UIAT(attack=FREE), UIAT(attack=FREE, inverse=replace(UNIVERSAL, epoch=0)), Trades(attack=FREE), Mart(attack=FREE)],
    ids=["uiat", "one-off", "trades", "mart"],
)
def test_replays_fit_any_method_with_weights_perturbed_and_parts(objective):
    values = stepped(plain_net(), objective, replays=2, awp=0.01, accumulate=2)
    assert all(value.isfinite().all() for value in values.values())


@pytest.mark.parametrize(
    ("objective", "options", "words"),
    [
        (Standard(), {}, "images of the batch as they are; weights before the update, model in train mode"),
        (PGDAT(), {}, "images of the batch attacked by 10 steps of PGD (ce) in Linf 8/255; weights before"),
        (Trades(), {}, "attacked by 10 steps of PGD (kl) in Linf 8/255"),
        (UIAT(attack=pgd(steps=1)), {}, "attacked by 1 steps of PGD (ce) in Linf 0.1"),
        (PGDAT(), {"awp": 0.005}, "model in train mode, perturbed by AWP"),
    ],
)
def test_a_step_says_of_which_weights_images_and_attack_its_terms_are(objective, options, words):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = make_step(model, objective, optimizer, num_classes=10, image_shape=(1, 8, 8), **options)
    assert words in repr(step)


@pytest.mark.parametrize(("epoch", "fraction"), [(0, 1 / 3), (1, 2 / 3), (2, 1.0), (7, 1.0)])
def test_the_radius_of_the_attack_grows_over_the_first_epochs(epoch, fraction):
    moved = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = tiny.linear()

        def forward(self, x):
            moved.append(x.detach().clone())
            return self.net(x)

    model = Watching()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    objective = PGDAT(attack=tiny.attack(4))
    step = make_step(model, objective, optimizer, num_classes=4, image_shape=(1, 8, 8), radius_warmup_epochs=2)
    x, y = tiny.tensors()
    x = x.clamp(0.3, 0.6)  # far enough from black and white that clipping shortens nothing
    step(Batch(x, y), epoch=epoch)
    assert float((moved[-1] - x).abs().max()) == pytest.approx(0.2 * fraction, abs=1e-6)
    assert step.objective.attack.threat.epsilon == 0.2


@pytest.mark.parametrize(("epoch", "steps"), [(0, 1), (1, 3), (2, 4)])
def test_the_steps_of_the_attack_grow_over_the_first_epochs(epoch, steps):
    model = tiny.linear()
    objective = PGDAT(attack=tiny.attack(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    step = make_step(model, objective, optimizer, num_classes=4, image_shape=(1, 8, 8), steps_warmup_epochs=2)
    x, y = tiny.tensors()
    step.check(Batch(x, y))  # its passes are no passes of a step
    with count_passes(model, x) as passes:
        step(Batch(x, y), epoch=epoch)
    assert (passes.input_backward, passes.training_backward) == (steps * len(x), len(x))
    attack = step.objective_at(epoch).attack
    assert attack.step_size == pytest.approx(min(objective.attack.step_size * 4 / steps, 0.2))


@pytest.mark.parametrize("what", ["radius", "steps"])
def test_a_warm_up_needs_an_attack(what):
    model = tiny.linear()
    with pytest.raises(UserError, match=f"a warm-up of the {what} needs a method with an attack, not 'standard'"):
        make_step(
            model,
            Standard(),
            torch.optim.SGD(model.parameters(), lr=0.1),
            num_classes=4,
            image_shape=(1, 8, 8),
            **{f"{what}_warmup_epochs": 1},
        )
