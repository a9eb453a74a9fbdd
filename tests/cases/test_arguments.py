"""Arguments of every kind that people give by mistake: what is refused and with which words, and what is accepted."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from torch import nn

import uiat
from support import tiny
from uiat import PGD, UIAT, Batch, Linf, UserError, losses
from uiat.checks.annotations import kind_of
from uiat.checks.names import unknown_argument
from uiat.checks.radii import number
from uiat.checks.ranges import Between
from uiat.checks.values import describe, take_path
from uiat.config.plain_yaml import parse_plain, read_text
from uiat.errors import ArgumentError
from uiat.models.misfit import run_model

pytestmark = pytest.mark.usefixtures("unchecked")
X, Y = tiny.tensors(16)
THREAT = Linf(0.1)


def refusal(call, kind=UserError):
    with pytest.raises(kind) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def attack():
    return PGD(threat=THREAT, step_size=0.05, steps=2)


# --- fields of frozen dataclasses, in Python and in YAML


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: PGD(descend="no"), "descend must be True or False, not 'no'"),
        (lambda: PGD(bounded=1), "bounded must be True or False, not 1"),
        (lambda: PGD(steps=True), "steps must be a whole number, not True"),
        (lambda: PGD(steps=2.0), "steps must be a whole number, not 2.0"),
        (lambda: PGD(restarts=10**20), "restarts must be at most 1000000, but is 1e+20"),
        (lambda: UIAT(weight=1e10), "weight must be at most 1000000, but is 1e+10"),
        (lambda: UIAT(weight="2"), "weight must be a number, not '2'"),
        (lambda: UIAT(weight=float("nan")), "weight must be at least 0, but is nan"),
        (lambda: UIAT(attack="pgd-10"), "attack must be a PGD, not 'pgd-10'"),
        (
            lambda: UIAT(inverse=None),
            "a UniversalInverse or a InstanceInverse or a GeneratorInverse, not None",
        ),
        (lambda: uiat.Optimisation(milestones=3), "milestones must be a list of whole numbers, not 3"),
        (lambda: uiat.Optimisation(clip_norm=-1.0), "clip_norm must be above 0, but is -1"),
        (lambda: uiat.Evaluation(attacks="pgd-20,cw-20"), "such as ['pgd-20', 'cw-20'], not the text 'pgd-20,cw-20'"),
        (lambda: uiat.Run(data="digits"), "data must be a Data, not 'digits'"),
        (lambda: uiat.Data(root=3), "root must be text, not 3"),
        (lambda: dataclasses.replace(PGD(), steps=None), "steps must be a whole number, not None"),
        (lambda: uiat.Square(threat=0.1), 'threat must be a threat model such as Linf("8/255"), not 0.1'),
        (lambda: uiat.Transfer(source="resnet18", threat=THREAT), "source must be a torch.nn.Module, not 'resnet18'"),
    ],
)
def test_fields_have_types_and_ranges(make, says):
    assert says in refusal(make)


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (("objective.attack.descend", "maybe"), "objective.attack.descend must be True or False, not 'maybe'"),
        (("objective.attack.steps", "true"), "objective.attack.steps must be a whole number, not True"),
        (("objective.attack.restarts", "9" * 20), "restarts must be at most 1000000, but is 1e+20"),
        (("objective.weight", "1e10"), "weight must be at most 1000000"),
        (("objective.weight", "yes"), "objective.weight must be a number, not True"),
        (("objective.name", "[]"), "unknown objective.name '[]'"),
        (("optimisation.clip_norm", "-1"), "clip_norm must be above 0"),
        (("seed", "2020-13-01"), "seed must be a whole number, not '2020-13-01'"),
        (("seed", "[" * 300), "seed is nested more than 20 deep"),
        (("seed", "9" * 5000), "seed holds a value of 5,000 characters"),
        (("objective.inverse.radius", "1e999999999"), "radius must be finite"),
    ],
)
def test_yaml_is_checked_in_the_same_way(setting, says):
    assert says in refusal(lambda: uiat.override(uiat.Run(), [setting]))


def test_what_is_meant_is_accepted():
    assert PGD(threat="Linf:8/255") == PGD(threat=Linf("8/255"))
    assert uiat.Evaluation(threat="L2:0.5").threat == uiat.L2(0.5)
    assert uiat.FGSM(threat="Linf:0.1") == uiat.FGSM(threat=Linf(0.1))
    assert type(uiat.Optimisation(learning_rate=1).learning_rate) is float
    assert PGD(steps=np.int64(3)) == PGD(steps=3)
    assert type(PGD(steps=np.int64(3)).steps) is int
    assert uiat.Optimisation(milestones=[2, 3]) == uiat.Optimisation(milestones=(2, 3))
    assert uiat.evaluate(tiny.linear(), X, Y, threat="Linf:0.1", attacks=["fgsm"]).threat == "Linf:0.1"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: PGD(eps=8 / 255), "PGD takes no 'eps'; did you mean threat=\"Linf:8/255\"?"),
        (lambda: PGD(alpha=0.1), "did you mean 'step_size'?"),
        (lambda: PGD(num_steps=3), "did you mean 'steps'?"),
        (lambda: PGD(random_start=True), "did you mean 'start'?"),
        (lambda: Linf(eps=0.1), "Linf takes no 'eps'; did you mean 'epsilon'?"),
        (lambda: UIAT(beta=3.0), "did you mean 'weight'?"),
        (lambda: uiat.Optimisation(lr=0.1), "did you mean 'learning_rate'?"),
        (lambda: uiat.evaluate(tiny.linear(), X, Y, eps=0.1), "evaluate takes no 'eps'; did you mean threat="),
        (lambda: uiat.fit(tiny.linear(), (X, Y), epochs=3), "fit takes no 'epochs'; did you mean 'optimisation'?"),
        (lambda: PGD(THREAT), "PGD takes no argument by place, not 1; name the others: threat="),
        (lambda: uiat.FGSM(), "FGSM needs 'threat'"),
        (lambda: uiat.evaluate(tiny.linear(), X, Y, THREAT), "evaluate takes 3 arguments by their place, not 4"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(call, says):
    """As a UserError that is a TypeError too, which is what Python itself raises."""
    assert issubclass(ArgumentError, UserError)
    assert issubclass(ArgumentError, TypeError)
    assert says in refusal(call, ArgumentError)


# --- models, images, labels


def evaluate(model, x, y):
    return uiat.evaluate(model, x, y, threat=THREAT, attacks=["fgsm"], selfchecks=False)


def step(model, x, y):
    optimizer = torch.optim.SGD(
        tiny.linear().parameters() if not isinstance(model, nn.Module) else model.parameters(), 0.1
    )
    options = {"num_classes": 4, "image_shape": (1, 8, 8)}
    return uiat.make_step(model, UIAT(attack=attack()), optimizer, **options)(Batch(x, y))


ENTRIES = {
    "evaluate": evaluate,
    "attack": lambda model, x, y: attack()(model, x, y),
    "radius_sweep": lambda model, x, y: uiat.radius_sweep(model, x, y, threat=THREAT, epsilons="0,0.1", attack="fgsm"),
    "minimum_norm": lambda model, x, y: uiat.minimum_norm(model, x, y, steps=3),
    "corruptions": lambda model, x, y: uiat.evaluation.corruptions.corruption_accuracy(model, x, y, kinds=["fog"]),
    "examine": lambda model, x, y: uiat.evaluation.examine(model, x, y, threat=THREAT),
    "make_step": step,
}
WRONG = {
    "a function": (lambda: (lambda x: x, X, Y), "model must be a torch.nn.Module, not the function <lambda>"),
    "None": (lambda: (None, X, Y), "model must be a torch.nn.Module, not None"),
    "half model": (
        lambda: (tiny.linear().half(), X, Y),
        "weights of torch.float16, but the images are torch.float32",
    ),
    "double images": (lambda: (tiny.linear(), X.double(), Y), "but the images are torch.float64"),
    "other shape": (lambda: (tiny.linear(pixels=9), X, Y), r"cannot take images of shape (1, 8, 8)"),
    "numpy": (lambda: (tiny.linear(), X.numpy(), Y), "images and labels must be torch tensors, not ndarray and Tensor"),
    "list": (lambda: (tiny.linear(), X, Y.tolist()), "images and labels must be torch tensors, not Tensor and list"),
    "bytes": (lambda: (tiny.linear(), (255 * X).to(torch.uint8), Y), "divide by 255 first"),
    "255": (lambda: (tiny.linear(), 255 * X, Y), "divide by 255 first"),
    "NaN": (lambda: (tiny.linear(), X * torch.nan, Y), "not finite"),
    "empty": (lambda: (tiny.linear(), X[:0], Y[:0]), "the batch of images is empty"),
    "sparse": (lambda: (tiny.linear(), X.to_sparse(), Y), "images must be plain tensors"),
    "float labels": (lambda: (tiny.linear(), X, Y.float()), "labels must be int64 class numbers"),
    "labels of another length": (lambda: (tiny.linear(), X, Y[:3]), "one for each image"),
    "labels beyond": (lambda: (tiny.linear(), X, Y + 2), "labels"),
    "no device": (lambda: (tiny.linear().to("meta"), X, Y), "meta"),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_refuses_in_the_same_sentence(entry, wrong):
    make, says = WRONG[wrong]
    assert says in refusal(lambda: ENTRIES[entry](*make()))


@pytest.mark.parametrize("entry", ENTRIES)
def test_every_entry_takes_half_precision_where_the_model_is_in_it(entry):
    ENTRIES[entry](tiny.linear().double(), X.double(), Y)


def test_an_error_of_the_model_itself_is_passed_on():
    class Broken(nn.Linear):
        def forward(self, x):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        run_model(Broken(2, 2), torch.rand(1, 2))
    assert "cannot take images of shape (5,)" in refusal(lambda: run_model(nn.Linear(4, 2), torch.rand(1, 5)))


def test_an_attack_alone_is_not_changed_by_its_surroundings():
    model = tiny.linear()
    x_adv = attack()(model, X, Y, key=uiat.attacks.random_numbers.keys(0, torch.arange(16)))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        again = attack()(model, X, Y, key=uiat.attacks.random_numbers.keys(0, torch.arange(16)))
    assert torch.equal(x_adv, again)


# --- objectives, losses, batches


@pytest.mark.parametrize(
    "objective", [uiat.Standard(), uiat.PGDAT(attack=attack()), uiat.Trades(), uiat.Mart(), UIAT()]
)
def test_methods_of_objectives_are_checked(objective):
    state = objective.init(num_classes=4, image_shape=(1, 8, 8))
    says = refusal(lambda: objective.perturb(tiny.linear(), (X, Y), state, epoch=0))
    assert says == "batch must be a Batch, not a tuple"
    assert "epoch must be a whole number" in refusal(
        lambda: objective.perturb(tiny.linear(), Batch(X, Y), state, epoch="0")
    )
    assert "num_classes must be at least 1" in refusal(lambda: objective.init(num_classes=0, image_shape=(1, 8, 8)))
    if objective.name != "standard":
        assert "no x_adv: perturb makes them" in refusal(lambda: objective.loss(tiny.linear(), uiat.Examples(X, Y)))
        assert "cannot take images" in refusal(
            lambda: objective.perturb(tiny.linear(pixels=9), Batch(X, Y), state, epoch=0)
        )


def test_a_batch_needs_no_index_but_where_a_row_an_example_is_kept():
    torch.manual_seed(0)
    model = tiny.linear()
    with_index, without = (
        [p.clone() for p in _trained(Batch(X, Y, index)).parameters()] for index in (torch.arange(16), None)
    )
    assert all(torch.equal(one, other) for one, other in zip(with_index, without, strict=True))
    assert Batch(X, Y)[2:5].index is None
    objective = UIAT(momentum="example")
    state = objective.init(num_classes=4, image_shape=(1, 8, 8), num_examples=16)
    says = refusal(lambda: objective.perturb(model, Batch(X, Y), state, epoch=0))
    assert "give uiat.Batch(x, y, index)" in says


def _trained(batch):
    torch.manual_seed(0)
    model = tiny.linear()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    uiat.make_step(model, UIAT(attack=attack()), optimizer, num_classes=4, image_shape=(1, 8, 8))(batch)
    return model


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda z: losses.cross_entropy(z, Y[:3]), "y must have the shape (b) with b = 16, not (3,)"),
        (lambda z: losses.cross_entropy(z, Y - 100), "labels must be in 0..3, but run from -100 to -97"),
        (lambda z: losses.cross_entropy(z, Y + 1), "labels must be in 0..3, but run from 1 to 4"),
        (lambda z: losses.margin(z, Y.int()), "y must be a tensor of int64 of shape (b)"),
        (lambda z: losses.kl(z, z[:1]), "log_q must have the shape (b, k) with b = 16"),
        (lambda z: losses.dlr(z[0], Y), "logits must be a tensor of floats of shape (b, k)"),
        (lambda z: losses.boosted_cross_entropy(z.tolist(), Y), "logits must be a tensor of floats"),
        (lambda z: losses.cross_entropy(z, Y, label_smoothing=2.0), "label_smoothing must be at most 1"),
        (lambda z: uiat.total({"ce": 1.0}), "terms must be a mapping from text to a plain torch tensor"),
    ],
)
def test_losses_are_checked(call, says):
    assert says in refusal(lambda: call(torch.randn(16, 4)))


def test_of_labels_that_torch_would_pass_over_none_is():
    """-100 is torch's mark for rows without a label, whose loss it calls 0."""
    assert losses.cross_entropy(torch.zeros(1, 4), torch.tensor([0])).item() == pytest.approx(1.3863, abs=1e-4)
    assert "labels must be in 0..3" in refusal(lambda: losses.cross_entropy(torch.zeros(1, 4), torch.tensor([-100])))


# --- paths, devices, numbers, YAML


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: uiat.load_inverse(None), "run must be a path, not None"),
        (lambda: uiat.load_inverse(""), "not ''"),
        (lambda: uiat.load("a\0b"), "run must be"),
        (lambda: uiat.resume("a" * 5000), "is too long for a path"),
        (lambda: uiat.load(3), "run must be"),
        (lambda: uiat.train("digits-uiat"), "run must be a Run, not 'digits-uiat'"),
        (lambda: uiat.experiments.sweep("digits-uiat", seeds=3), "seeds must be a list of whole numbers, not 3"),
        (lambda: uiat.experiments.sweep("digits-uiat", settings=["a"]), "settings must be a mapping"),
        (lambda: uiat.data.Loader((X, Y), batch_size=4), "data must be a ImageSet, not"),
        (lambda: uiat.data.load("digits", "train", root=3), "root must be a path, not 3"),
        (lambda: uiat.data.from_tensors(X, torch.tensor([0] * 15 + [2**40])), "more than 1,000,000"),
        (lambda: uiat.models.build(3, num_classes=2, image_shape=(1, 8, 8)), "name must be text, not 3"),
        (lambda: uiat.analyse.run("strength", "runs/a"), "runs must be a list"),
    ],
)
def test_the_rest_of_the_public_functions(call, says):
    assert says in refusal(call)


def test_no_number_takes_for_ever():
    started = time.perf_counter()
    assert "finite" in refusal(lambda: Linf("1e999999999"))
    assert "must be a number" in refusal(lambda: Linf("1e-999999999/3"))
    assert "stands for 4,999,999 radii" in refusal(lambda: uiat.evaluation.epsilons("0,1e-7,...,0.5"))
    assert number("8/255") == 8 / 255
    assert number("0.1") == 0.1
    assert time.perf_counter() - started < 2


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "holds more than 20,000 values"),
        ("a: &a [*a]", "the alias *a stands inside what it stands for"),
        ("[" * 10_000, "nested more than 20 deep"),
        ("{a: " * 10_000, "nested more than 20 deep"),
        ("seed: " + "9" * 5_000, "holds a value of 5,000 characters"),
        ("seed: 1\nseed: 2", "'seed' stands there twice"),
        ("seed: !!timestamp 2020-01-01", "it names the type"),
        ("seed: !!python/object/apply:os.getcwd []", "it names the type"),
        ("x" * 1_100_000, "longer than 1,000,000 characters"),
        ("\x00", "is not valid YAML"),
    ],
)
def test_yaml_holds_plain_values_and_no_more_than_settings_need(text, says):
    started = time.perf_counter()
    assert says in refusal(lambda: parse_plain(text, source="run.yaml"))
    assert time.perf_counter() - started < 5


def test_plain_yaml_is_read_as_it_was():
    assert parse_plain("a: &a {b: 1}\nc: *a\nd: 2020-13-01\ne: [1.5, yes, null]", source="t") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": "2020-13-01",
        "e": [1.5, True, None],
    }


def test_a_file_without_end_is_read_to_its_limit(tmp_path):
    assert "/dev/zero is larger than 1,000,000 bytes" in refusal(lambda: read_text(type(tmp_path)("/dev/zero")))
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    assert "is not a text file" in refusal(lambda: read_text(tmp_path / "a.yaml"))


# --- the checks themselves


@pytest.mark.parametrize(
    ("hint", "value", "taken"),
    [
        (int | None, None, None),
        (float, 2, 2.0),
        (str | float, "8/255", "8/255"),
        (tuple[int, ...], [1, 2], (1, 2)),
        (list[str], ["a"], ["a"]),
        (dict[str, int], {"a": 1}, {"a": 1}),
        (nn.Module, tiny.linear, None),
    ],
)
def test_kinds(hint, value, taken):
    if callable(value):
        assert "must be a torch.nn.Module, not the function linear" in refusal(
            lambda: kind_of(hint).check(value, "model")
        )
    else:
        assert kind_of(hint).check(value, "a") == taken


def test_words_of_values_names_and_ranges():
    assert describe(torch.zeros(2)) == "a tensor of torch.float32 (2,)"
    assert describe("a" * 200).endswith("...")
    assert "takes no 'stepz'; did you mean 'steps'" in str(unknown_argument("f", "stepz", ["steps"]))
    assert refusal(lambda: Between(0, 1, above=True).check(0, "rho")) == "rho must be above 0, but is 0"
    assert "about 10^400" in refusal(lambda: Between(0, 1).check(10**400, "n"))
    assert take_path("a/b") == "a/b"
