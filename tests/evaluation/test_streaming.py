"""A stream is evaluated as its images at once would be, and resumed where it was stopped."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import uiat
from uiat import Linf, UserError
from uiat.data import from_tensors, stream
from uiat.evaluation import streaming
from uiat.evaluation.selfcheck import attack_checks

THREAT = Linf(0.03)
ATTACKS = [
    "fgsm",
    "uap-class-2",
    "pgd-3-2",
    "pgd-2-targeted",
    uiat.APGD(threat=THREAT, iterations=4),
    uiat.Square(threat=THREAT, iterations=9),
]


@pytest.fixture
def case(monkeypatch):
    monkeypatch.setattr(stream, "CHUNK_BYTES", 7 * 4 * 16)  # seven images
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3))
    x = torch.rand(24, 1, 4, 4)
    y = model(x).argmax(1)
    y[::7] = (y[::7] + 1) % 3
    return model, x, y


def test_verdicts_accuracies_and_sums_are_those_of_all_images_at_once(case):
    model, x, y = case
    fit = torch.rand(30, 1, 4, 4)
    options = {"threat": THREAT, "attacks": ATTACKS, "seed": 3, "fit": (fit, model(fit).argmax(1))}
    whole = uiat.evaluate(model, x, y, **options)
    streamed = uiat.evaluate(model, from_tensors(x, y), **options)
    for name in ("n", "accuracy", "broken_by", "per_class", "intervals", "sums", "verdict", "budgets"):
        assert getattr(streamed, name) == getattr(whole, name), name
    assert 0 < whole.accuracy["worst"] < whole.accuracy["clean"] < 1
    once = uiat.evaluate(model, ((x[i : i + 5], y[i : i + 5]) for i in range(0, 24, 5)), selfchecks=False, **options)
    assert (once.broken_by, once.sums["labels"]) == (whole.broken_by, whole.sums["labels"])
    costs = [sum(stage["forward"] for stage in result.passes.values()) for result in (whole, streamed)]
    assert costs[0] == costs[1]


def test_a_stopped_stream_is_resumed_after_its_last_chunk(case, tmp_path):
    model, x, y = case
    options = {"threat": THREAT, "attacks": ["fgsm"], "selfchecks": False}
    whole, state = uiat.evaluate(model, x, y, **options), tmp_path / "state.safetensors"

    def failing(until):
        for i in range(0, 24, 5):
            if i >= until:
                raise KeyError("the disk is gone")
            yield x[i : i + 5], y[i : i + 5]

    with pytest.raises(KeyError, match="the disk is gone"):
        uiat.evaluate(model, failing(20), state=state, **options)
    with pytest.raises(UserError, match="holds the state of an evaluation: resume it"):
        uiat.evaluate(model, failing(99), state=state, **options)
    with pytest.raises(UserError, match="data begins with other images than the evaluation that is to be resumed"):
        uiat.evaluate(model, [(1 - x, y)], state=state, resume=True, **options)
    with pytest.raises(UserError, match="data ended after 5 images, of which 14 were evaluated before"):
        uiat.evaluate(model, [(x[:5], y[:5])], state=state, resume=True, **options)
    resumed = uiat.evaluate(model, failing(99), state=state, resume=True, **options)
    assert (resumed.broken_by, resumed.accuracy) == (whole.broken_by, whole.accuracy)


def test_a_bounded_random_choice_is_kept_for_the_self_checks():
    passed = streaming.Passed(seed=0, total=None, kept=4)
    x = torch.arange(50.0)[:, None, None, None]
    for rows in torch.arange(50).split(7):
        passed.add(x[rows], rows)
    kept = passed.sample[1].tolist()
    assert (len(kept), kept == sorted(kept), kept != [0, 1, 2, 3]) == (4, True, True)
    assert passed.sample[0].flatten().tolist() == kept


@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_evaluated_is_refused(case):
    model, x, y = case
    for given, labels, message in (
        (x, None, "images x need their labels y"),
        ([(x, y)], y, "labels y go with a tensor of images"),
        ([(x, y + 5)], None, r"labels run up to|labels must be in 0..2"),
        ([(x, y), (x, y + 5)], None, r"labels must be in 0..2"),
        ("text", None, r"x must be a tensor of floats of shape .* or an iterable of \(images, labels\)"),
        (x.numpy(), y, "images and labels must be torch tensors, not ndarray"),
    ):
        with pytest.raises(UserError, match=message):
            uiat.evaluate(model, given, labels, threat=Linf(0.1), attacks=["fgsm"])
    with pytest.raises(UserError, match="keep_examples keeps every image in memory"):
        uiat.evaluate(model, [(x, y)], threat=Linf(0.1), attacks=["fgsm"], keep_examples=True)


def test_a_loader_and_a_bare_gradient(case):
    model, x, y = case
    loader = DataLoader(TensorDataset(x, y), batch_size=4)
    blunt = nn.Sequential(model, type("Detach", (nn.Module,), {"forward": lambda self, z: z.detach()})())
    result = uiat.evaluate(blunt, loader, threat=Linf(0.03), attacks=["fgsm"], selfchecks=False)
    assert (list(result.accuracy), result.n) == (["clean", "worst"], 24)


def test_a_stream_that_has_grown_since_is_not_resumed_inside_a_chunk(case, tmp_path):
    model, x, y = case
    options = {"threat": THREAT, "attacks": ["fgsm"], "selfchecks": False, "state": tmp_path / "state.safetensors"}
    uiat.evaluate(model, [(x[:10], y[:10])], **options)  # one chunk of seven, and three more images
    with pytest.raises(UserError, match="begins with other images than the evaluation that is to be resumed"):
        uiat.evaluate(model, [(x, y)], resume=True, **options)


def test_plain_attacks_on_a_stream_are_checked_like_those_on_tensors(monkeypatch):
    monkeypatch.setattr(stream, "CHUNK_BYTES", 50 * 4 * 16)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3, bias=False))
    model[1].weight.data -= model[1].weight.mean(1, keepdim=True)  # so that each class has images
    x = torch.rand(200, 1, 4, 4)
    y, asked = model(x).argmax(1), []
    monkeypatch.setattr(attack_checks, "check_plain_attacks", lambda names, count, n: asked.append((names, n)))
    options = {"threat": Linf(0.05), "attacks": ["fgsm"]}
    for given in ((x, y), (from_tensors(x, y),)):
        result = uiat.evaluate(model, *given, **options)
        asked.append(result.accuracy["fgsm"])
    robust = round(128 * asked[1])
    assert asked[0][0] == "fgsm" == asked[2][0]
    assert asked[1] == asked[3]
    assert all(abs(n - robust) < 25 for _, n in (asked[0], asked[2]))  # of the images that are looked at
