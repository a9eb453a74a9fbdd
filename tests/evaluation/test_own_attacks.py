"""Attacks of the user's own under the judge: beside named ones, verified, resumed, and part of the self-checks."""

import os
import sys

import pytest
import torch
from torch import nn

import uiat
from uiat import PGD, Linf, UserError, evaluate
from uiat.attacks import APGD, Square
from uiat.evaluation.own_attacks import is_own_name, load_attack, make_attack, name_attack, split_names
from uiat.evaluation.selfcheck.result_checks import from_result

EPSILON = 0.1
FILE = """
import torch
from dataclasses import dataclass

def sign(model, x, y):
    x = x.requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(x), y)
    return x.detach() + 0.1 * torch.autograd.grad(loss, x)[0].sign()

@dataclass
class Noise:
    size: float = 0.05
    def __call__(self, model, x, y):
        return x + self.size * (2 * torch.rand_like(x) - 1)

class Harder:
    def __init__(self, threat):
        self.threat = threat
    def __call__(self, model, x, y):
        return x + 2 * float(self.threat.epsilon)

number = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    yield "mine.py"
    for name in [name for name in sys.modules if name.startswith("uiat_attack_")]:
        del sys.modules[name]


@pytest.fixture
def linear():
    """A linear model that is right on every image, and the mask of those that Linf 0.1 can break: half of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    model[1].weight.data[1] = -model[1].weight.data[0]
    towards = model[1].weight.data[0].sign().view(1, 1, 8, 8)
    model[1].bias.data = torch.stack([-0.5 * (model[1].weight.data[k]).sum() for k in (0, 1)])
    distance = torch.linspace(-0.2, 0.2, 60).view(-1, 1, 1, 1)
    x = 0.5 + distance * towards
    return model, x, model(x).argmax(1), distance.flatten().abs() < EPSILON


def sign(model, x, y):
    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), x)
    return x.detach() + EPSILON * gradient.sign()


class Same:
    def __call__(self, model, x, y):
        return x


def judge(linear, attacks, **options):
    model, x, y, _ = linear
    return evaluate(model, x, y, threat=Linf(EPSILON), attacks=attacks, **options)


def test_objects_functions_and_pairs_stand_beside_names(linear):
    pgd = PGD(threat=Linf(EPSILON), step_size=0.05, steps=5)
    result = judge(linear, ["pgd-2", pgd, pgd, sign, Same(), ("steep", sign), APGD(threat=Linf(EPSILON))])
    assert list(result.accuracy) == ["clean", "pgd-2", "PGD", "PGD 2", "sign", "Same", "steep", "APGD", "worst"]
    robust = 1 - linear[3].float().mean().item()
    assert [result.accuracy[name] for name in ("sign", "steep", "APGD", "worst")] == pytest.approx([robust] * 4)
    assert result.accuracy["Same"] == 1.0
    assert result.passes["sign"]["backward"] > 0
    assert result.budgets["sign"]["origin"].split(", sha256 ")[0].endswith("test_own_attacks:sign")
    assert result.warnings == [f"Same: it has changed none of the {len(linear[1])} images that it was given"]


def test_what_a_callable_says_is_not_believed(linear):
    x = linear[1]
    far = judge(linear, [("far", lambda model, x, y: torch.rand_like(x))], selfchecks=False)
    assert far.projected == {"far": len(x)}
    assert far.warnings == [f"far: {len(x)} of its examples lay outside the ball or [0, 1] and were projected"]
    inside = judge(linear, [("inside", lambda model, x, y: x + 0.01)], selfchecks=False)
    assert inside.projected == {"inside": 0}


def test_the_worst_case_counts_what_any_of_them_breaks(linear):
    first = ("first", lambda model, x, y: torch.where((y == 0).view(-1, 1, 1, 1), sign(model, x.clone(), y), x))
    second = ("second", lambda model, x, y: torch.where((y == 1).view(-1, 1, 1, 1), sign(model, x.clone(), y), x))
    result = judge(linear, [first, second], keep_examples=True)
    assert result.accuracy["worst"] == pytest.approx(1 - linear[3].float().mean().item())
    assert result.accuracy["worst"] < min(result.accuracy["first"], result.accuracy["second"])
    model, x, y, breakable = linear
    assert torch.equal(model(result.examples).argmax(1) != y, breakable)
    assert (result.examples - x).abs().max() <= EPSILON + 1e-6


def test_it_is_resumed_to_the_same_verdicts(linear, tmp_path):
    def noise(model, x, y):
        return x + torch.rand(len(x), 1, 1, 1) * (sign(model, x.clone(), y) - x)

    def stops(model, x, y):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(1)
        return noise(model, x, y)

    options = {"batch_size": 16, "selfchecks": False, "state": tmp_path / "state.safetensors", "save_minutes": 0.0}
    whole = judge(linear, [("mine", noise)], batch_size=16, selfchecks=False)
    calls = []
    attack = stops
    outer = ("mine", lambda model, x, y: attack(model, x, y))
    with pytest.raises(KeyboardInterrupt):
        judge(linear, [outer], **options)
    attack = noise
    resumed = judge(linear, [outer], resume=True, **options)
    assert resumed.broken_by == whole.broken_by
    assert 0 < whole.accuracy["mine"] < 1


def test_a_model_without_a_gradient_is_attacked_by_functions_alone(linear):
    class Detached(nn.Module):
        def __init__(self, model):
            super().__init__()
            self.model = model

        def forward(self, x):
            return self.model(x).detach()

    model, x, y, _ = linear
    noise = ("noise", lambda model, x, y: x + EPSILON * torch.randn_like(x).sign())
    result = evaluate(Detached(model), x, y, threat=Linf(EPSILON), attacks=["fgsm", PGD(threat=Linf(EPSILON)), noise])
    assert set(result.accuracy) == {"clean", "noise", "worst"}
    assert any("not run: fgsm, PGD" in warning for warning in result.warnings)


def test_the_self_checks_say_where_an_own_attack_beats_auto_pgd():
    class Rounded(nn.Module):
        """Right on every image; its gradient points the wrong way, which a query finds out."""

        def forward(self, x):
            score = x.flatten(1).mean(1)
            score = score.detach() * 2 - score
            return torch.stack([0.5 - score, score - 0.5], 1)

    x = torch.linspace(0.41, 0.59, 60).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    model = Rounded()
    y = model(x).argmax(1)

    def away(model, x, y):
        return x + EPSILON * (1 - 2 * y.view(-1, 1, 1, 1).float())

    result = evaluate(model, x, y, threat=Linf(EPSILON), attacks=["apgd-ce", away])
    assert result.accuracy["away"] == 0.0
    (found,) = (finding for finding in from_result(result) if finding.check == "own attack")
    assert found.reason.startswith(f"away breaks {result.broken_by.count('away')} of 60 points")
    first = evaluate(model, x, y, threat=Linf(EPSILON), attacks=[away, "apgd-ce"], selfchecks=False)
    assert not [finding for finding in from_result(first) if finding.check == "own attack"]


@pytest.mark.parametrize("name", ["mine.py:sign", "mine:sign"])
def test_a_function_of_a_file_is_named_as_it_is_written(linear, mine, name):
    sys.path.insert(0, os.getcwd())
    try:
        result = judge(linear, [name], selfchecks=False)
    finally:
        sys.path.remove(os.getcwd())
        sys.modules.pop("mine", None)
    assert result.accuracy[name] == pytest.approx(1 - linear[3].float().mean().item())


def test_classes_are_made_with_the_threat_model_if_they_take_it(linear, mine):
    result = judge(linear, ["mine.py:Noise", "mine.py:Harder"], selfchecks=False)
    assert result.projected == {"mine.py:Noise": 0, "mine.py:Harder": len(linear[1])}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("attacks", "says"),
    [
        (["mine.py:sing"], "unknown function in mine.py 'sing'; did you mean 'sign'"),
        (["other.py:sign"], "there is no file 'other.py' to read the attack from"),
        (["mine.py:number"], "unknown function in mine.py 'number'"),
        (["pgd-2O"], "unknown attack 'pgd-2O'"),
        ([3], "the attack int is of class int"),
        ([None], "the attack NoneType is of class NoneType"),
        ([("pgd-20", sign)], "the name 'pgd-20' is that of another attack"),
        ([("worst", sign)], "the name 'worst' is that of another attack"),
        ([("a", sign), ("a", sign)], "the name 'a' is that of another attack"),
        ([("a", sign, 1)], "an attack with a name of its own is written (name, attack)"),
        ([PGD(threat=Linf(0.2))], "PGD is for Linf"),
        ([Square(threat=Linf(0.2))], "Square is for Linf"),
        (["foolbx:LinfPGD"], "there is no module 'foolbx'"),
        (["torchattacks:"], "torchattacks"),
    ],
)
def test_what_is_no_attack_is_refused_before_the_work(linear, mine, attacks, says):
    with pytest.raises(UserError) as refused:
        judge(linear, attacks)
    assert says in str(refused.value)


def test_names_are_split_outside_brackets():
    assert split_names(" a, b:C(d=1,e=(2,3)) ,f,") == ["a", "b:C(d=1,e=(2,3))", "f"]


def test_a_class_that_needs_arguments_is_refused():
    class Needs:
        def __init__(self, size):
            self.size = size

    with pytest.raises(UserError, match="needs cannot be made without arguments"):
        make_attack(Needs, name="needs", threat=Linf(0.1))


def test_an_entry_point_of_an_installed_package_is_a_name(linear, mine, tmp_path, monkeypatch):
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[uiat.attacks]\nsteep = mine:sign\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert is_own_name("steep")
    result = judge(linear, ["steep"], selfchecks=False)
    sys.modules.pop("mine", None)
    assert result.accuracy["steep"] == pytest.approx(1 - linear[3].float().mean().item())


def test_names_of_attacks_without_a_name():
    assert [name_attack(value) for value in (sign, Same(), Same, lambda m, x, y: x)] == [
        "sign",
        "Same",
        "Same",
        "attack",
    ]
    assert load_attack("no-such", Linf(0.1)) is None
    assert uiat.PGD().steps == PGD().steps
