import pytest
import torch
from torch import nn

import uiat
from uiat import L2, Linf
from uiat.evaluation import EvaluationResult, entry, evaluate_zoo, zoo_model

# The keys of RobustBench's model_info, and the types that its files have.
SHAPE = {
    **{"link": str, "name": str, "authors": str, "additional_data": bool, "number_forward_passes": int},
    **{"dataset": str, "venue": str, "architecture": str, "eps": str, "clean_acc": str, "reported": str},
    **{"autoattack_acc": str, "unreliable": bool, "footnote": str},
}


def result(threat="Linf:0.03137255", *, verdict="", **accuracy):
    return EvaluationResult(threat, 1000, {"clean": 0.8456, **accuracy}, {}, [], 0, verdict=verdict)


def test_an_entry_has_the_shape_of_robustbench():
    record = entry(result(autoattack=0.50125), dataset="cifar10", architecture="WideResNet-28-10", link="https://x")
    assert {name: type(value) for name, value in record.items()} == SHAPE
    assert list(record) == list(SHAPE)
    assert (record["clean_acc"], record["autoattack_acc"], record["eps"]) == ("84.56", "50.12", "8/255")


@pytest.mark.parametrize("name", ["autoattack-quick", "autoattack-plus", "pgd-20", "apgd-t"])
def test_only_the_standard_ensemble_gives_an_autoattack_accuracy(name):
    assert "autoattack_acc" not in entry(result(**{name: 0.5}), dataset="cifar10")


@pytest.mark.parametrize(
    ("threat", "text"), [("Linf:0.01568627", "4/255"), ("Linf:0.3", "0.3"), ("L2:0.5", "0.5"), ("L1:12", "12")]
)
def test_radii_as_robustbench_writes_them(threat, text):
    assert entry(result(threat), dataset="mnist")["eps"] == text


def test_a_verdict_against_the_number_makes_it_unreliable():
    assert entry(result(verdict="do not believe this number: ..."), dataset="x")["unreliable"]
    assert not entry(result(verdict="nothing speaks against the number"), dataset="x")["unreliable"]


def test_the_content_of_an_evaluation_json_will_do():
    assert entry(result().to_json(), dataset="cifar10") == entry(result(), dataset="cifar10")


class Parts(nn.Module):
    def __init__(self):
        super().__init__()
        self.models = nn.ModuleList([net(), net()])

    def forward(self, x):
        return sum(part(x) for part in self.models)


def net():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(7)
    state = net().state_dict()
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "w.pt")
    return tmp_path / "w.pt"


def test_a_dictionary_of_models(weights, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def make(*, num_classes, image_shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    models = {
        "A": {"model": net, "gdrive_id": "1234"},
        "B": {"model": f"{tmp_path / 'mine.py'}:make", "gdrive_id": None},
        "C": {"model": net()},
        "D": {"model": Parts, "gdrive_id": ["1", "2"]},
    }
    state = torch.load(weights, weights_only=True)["state_dict"]
    for name in "ABC":
        model = zoo_model(models, name, weights=weights, image_shape=(1, 8, 8))
        assert torch.equal(model[1].weight, state["module.1.weight"])
        assert not model.training
    model = zoo_model(models, "D", weights=[weights, weights])
    assert all(torch.equal(part[1].weight, state["module.1.weight"]) for part in model.models)


def test_one_of_them_is_evaluated(weights):
    models = {"A": {"model": net, "data": "digits", "threat": "linf:0.05", "gdrive_id": "1234"}}
    first = evaluate_zoo(models, "A", weights=weights, n=40, attacks=["fgsm"], selfchecks=False)
    assert (first.n, first.threat) == (40, "Linf:0.05")
    x, y = uiat.data.tensors("digits", "test")
    again = evaluate_zoo(
        models, "A", weights=weights, data=(x, y), threat=L2(0.5), n=40, attacks=["fgsm"], selfchecks=False
    )
    assert again.threat == "L2:0.5"
    assert again.accuracy["clean"] == first.accuracy["clean"]


def test_the_last_class_may_be_missing_among_the_labels(weights, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def make(*, num_classes, image_shape):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    x, y = uiat.data.tensors("digits", "test")
    x, y = x[y < 9][:20], y[y < 9][:20]
    options = {"data": (x, y), "threat": Linf(0.05), "attacks": ["clean"], "weights": weights}
    models = {"A": {"model": f"{tmp_path / 'mine.py'}:make"}}
    with pytest.raises(uiat.UserError, match="A: images and labels do not say how many classes there are"):
        evaluate_zoo(models, "A", **options)
    given = evaluate_zoo(models, "A", **options, num_classes=10)
    in_the_entry = evaluate_zoo({"A": models["A"] | {"num_classes": 10}}, "A", **options)
    own = evaluate_zoo({"A": {"model": net}}, "A", **options)
    assert given.broken_by == in_the_entry.broken_by == own.broken_by
    assert len(given.per_class["clean"]) == 10


MISTAKES = {
    "name": ({"Aa": {"model": net}}, {}, "unknown model 'A'; did you mean 'Aa'"),
    "no model": ({"A": {"gdrive_id": "1"}}, {}, 'A: the entry must be a dictionary with a "model"'),
    "no module": ({"A": {"model": lambda: 3}}, {}, "gives no torch.nn.Module"),
    "parts": ({"A": {"model": net}}, {"weights": ["a", "b"]}, "2 files of weights need a model with as many parts"),
    "no threat": ({"A": {"model": net}}, {"threat": None}, "A: give a threat model"),
    "no data": ({"A": {"model": net}}, {"data": None}, "A: give the data"),
    "n": ({"A": {"model": net}}, {"n": 540}, "there are 539 images, fewer than the 540 asked for"),
}


@pytest.mark.parametrize(("models", "options", "says"), MISTAKES.values(), ids=MISTAKES)
def test_what_cannot_be_meant_is_refused(models, options, says):
    options = {"data": "digits", "threat": Linf(0.05)} | options
    with pytest.raises(uiat.UserError, match=says):
        evaluate_zoo(models, "A", **options)
