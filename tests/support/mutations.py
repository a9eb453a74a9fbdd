"""Calls of the public API, and words of the command line, with something wrong put into them; and what came of it.

`tests/cases/test_fuzz.py` draws by hypothesis, `benchmarks/fuzz.py` from a random generator: both by `choose(options)`.
"""

import contextlib
import io
import math
import re
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import uiat
from uiat import Batch, Examples, Linf, UserError, evaluation, losses, models
from uiat.attacks import input_gradient, projected_gradient
from uiat.cli import main
from uiat.evaluation.corruptions import corruption_accuracy
from uiat.evaluation.unseen import evaluate_unseen
from uiat.training.loop import Training

Choose = Callable[[Sequence[Any]], Any]
CLASSES, SHAPE, SECONDS = 4, (1, 8, 8), 20
# What messages call an argument, where it is not by its name.
WORDS = {
    "x": ("image", "shape", "batch"),
    "y": ("label", "image"),
    "train_data": ("image", "label", "data", "tensor", "set"),
    "validation_data": ("image", "label", "data"),
    "model": ("model", "parameter", "logits", "label"),
    "batch": ("image", "label", "Batch", "row"),
    "examples": ("image", "label", "x_adv", "shape"),
    "images": ("image",),
    "labels": ("label", "image"),
    "data": ("image", "set", "threat"),
    "dataset": ("set", "length", "data", "image"),
    "run": ("file", "folder", "path"),
    "path": ("file", "folder", "path"),
    "num_classes": ("class", "label", "z", "state"),
    "image_shape": ("shape", "image", "channels"),
    "optimizer": ("optimiser",),
    "text": ("configuration", "field", "mapping", "run"),
    "name": ("unknown",),
    "study": ("study",),
    "runs": ("RUN",),
    "batch_size": ("batch size",),
    "size": ("cannot take",),
    "severities": ("severity",),
    "n": ("cannot take",),
    "values": ("epsilon",),
    "logits": ("b = ", "label"),
    "log_p": ("b = ", "logits"),
    "log_q": ("b = ", "logits"),
    "target": ("label",),
    "start": ("b = ",),
    "state": ("state", "init"),
    "loss": ("loss", "output", "model"),
}


def net(classes: int = CLASSES) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def images(n: int = 8) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.rand(n, *SHAPE), torch.arange(n) % CLASSES


class Strange(nn.Module):
    """Gives what is no logits."""

    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.net, self.form = net(), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.net(x))


def _examples() -> Examples:
    x, y = images()
    return Examples(x, y, x.clone(), x.clone(), torch.full((8, CLASSES), 0.25), None, 1.0)


def _step(batch: Any = None, **given: Any) -> Any:
    return uiat.make_step(**given)(batch)


def _sgd(model: nn.Module | None = None) -> torch.optim.Optimizer:
    return torch.optim.SGD((model or net()).parameters(), lr=0.1)


def _base_step() -> dict[str, Any]:
    model = net()
    options = {"num_classes": CLASSES, "image_shape": SHAPE, "num_examples": 8}
    extra = {"precision": "fp32", "clip_norm": 1.0, "awp": 0.01, "accumulate": 1, "replays": 0, "recompute": False}
    batch = Batch(*images(), torch.arange(8))
    return {"model": model, "objective": uiat.UIAT(), "optimizer": _sgd(model), "batch": batch} | options | extra


def _judged(**more: Any) -> dict[str, Any]:
    x, y = images()
    return {"model": net(), "x": x, "y": y} | more


def _logits() -> Tensor:
    torch.manual_seed(2)
    return torch.randn(8, CLASSES)


def _make_calls() -> dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]]:
    """Return the calls by name: a function, and arguments that it accepts."""
    threat, labels = Linf(0.1), images()[1]
    calls: dict[str, tuple[Callable[..., Any], Callable[[], dict[str, Any]]]] = {}
    plain: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "Linf": (uiat.Linf, {"epsilon": 0.1}),
        "L2": (uiat.L2, {"epsilon": 0.5}),
        "L1": (uiat.L1, {"epsilon": 5}),
        "PGD": (
            uiat.PGD,
            {"threat": threat, "step_size": 0.05, "steps": 2, "restarts": 1, "loss": "ce", "descend": False},
        ),
        "FGSM": (uiat.FGSM, {"threat": threat, "batchnorm": "eval"}),
        "FGSMRS": (uiat.FGSMRS, {"threat": threat}),
        "NFGSM": (uiat.NFGSM, {"threat": threat, "noise": 2.0}),
        "APGD": (uiat.APGD, {"threat": threat, "iterations": 3, "rho": 0.7, "loss": "dlr"}),
        "SparseAPGD": (uiat.SparseAPGD, {"threat": uiat.L1(2), "iterations": 3, "shrinking": True}),
        "FAB": (uiat.FAB, {"threat": threat, "iterations": 3, "eta": 1.05, "targeted": True}),
        "FMN": (uiat.FMN, {"threat": threat, "iterations": 3, "gamma": 0.05}),
        "Square": (uiat.Square, {"threat": threat, "iterations": 3, "p_init": 0.5}),
        "Noise": (uiat.Noise, {"threat": threat, "iterations": 3}),
        "UniversalAttack": (uiat.UniversalAttack, {"threat": threat, "passes": 2, "targets": 3}),
        "Patch": (uiat.Patch, {"size": 2, "place": (0, 1)}),
        "PatchAttack": (uiat.PatchAttack, {"threat": uiat.Patch(2), "iterations": 3, "step_size": 0.1}),
        "Transfer": (uiat.Transfer, {"source": net(), "threat": threat, "momentum": 1.0}),
        "InstanceInverse": (
            uiat.InstanceInverse,
            {"radius": 0.05, "step_size": 0.01, "steps": 2, "regulariser": "none"},
        ),
        "UniversalInverse": (uiat.UniversalInverse, {"radius": 0.05, "epoch": 1, "warm_start": None, "start": "sign"}),
        "UIAT": (uiat.UIAT, {"weight": 2.0, "gamma": 0.5, "kl": "inverse-adversarial", "momentum": "none"}),
        "IAT": (uiat.IAT, {"inverse": uiat.InstanceInverse(), "weight": 2.0}),
        "Trades": (uiat.Trades, {"weight": 2.0, "attack": uiat.PGD()}),
        "Mart": (uiat.Mart, {"weight": 2.0}),
        "PGDAT": (uiat.PGDAT, {"label_smoothing": 0.1, "alignment": 0.0}),
        "Standard": (uiat.Standard, {"label_smoothing": 0.1}),
        "Data": (uiat.Data, {"name": "digits", "root": None, "batch_size": 8, "augment": "crop"}),
        "Model": (uiat.Model, {"name": "small-cnn", "width": 4, "activation": "relu"}),
        "Optimisation": (uiat.Optimisation, {"epochs": 2, "learning_rate": 0.1, "nesterov": True, "milestones": (1,)}),
        "Validation": (uiat.Validation, {"every": 1, "steps": 2, "metric": "clean", "patience": None}),
        "Guards": (uiat.Guards, {"chance_epochs": 3, "overfitting": "warn"}),
        "Compute": (uiat.Compute, {"device": "cpu", "precision": "fp32", "compile": False, "checkpoint_minutes": 5.0}),
        "Evaluation": (uiat.Evaluation, {"attacks": ("clean",), "threat": threat, "n": 5}),
        "Run": (uiat.Run, {"name": "a", "seed": 1, "data": uiat.Data(), "objective": uiat.UIAT()}),
        "override": (uiat.override, {"run": uiat.Run(), "assignments": [("seed", "3")]}),
        "dump": (uiat.dump, {"run": uiat.Run()}),
        "load_config": (uiat.load_config, {"text": "seed: 3", "source": "the text"}),
        "load": (uiat.load, {"run": "missing", "which": "best", "model": net(), "own_code": False}),
        "load_inverse": (uiat.load_inverse, {"run": "missing"}),
        "resume": (uiat.resume, {"run_dir": "missing", "own_code": False}),
        "recipes.get": (uiat.recipes.get, {"name": "digits-uiat"}),
        "recipes.describe": (uiat.recipes.describe, {"name": "digits-uiat"}),
        "analyse.run": (
            uiat.analyse.run,
            {"study": "strength", "runs": ["missing"], "n": 5, "seed": 0, "attack": "pgd-2"},
        ),
        "experiments.sweep": (
            uiat.experiments.sweep,
            {"recipe": "digits-uit", "seeds": [0], "folder": "f", "evaluated": True},
        ),
        "experiments.EvaluateOptions": (uiat.experiments.EvaluateOptions, {"run": Path("a"), "n": 3, "seed": 0}),
        "evaluation.attack": (evaluation.attack, {"name": "pgd-2", "threat": threat, "source": None}),
        "evaluation.epsilons": (evaluation.epsilons, {"values": "0,0.1,...,0.3"}),
        "models.build": (
            models.build,
            {"name": "small-cnn", "num_classes": 4, "image_shape": SHAPE, "width": 4, "mean": [0.5]},
        ),
        "models.Normalize": (models.Normalize, {"mean": [0.5], "std": [0.5]}),
        "data.load": (uiat.data.load, {"name": "digits", "split": "test", "root": None, "download": False}),
        "data.from_tensors": (
            uiat.data.from_tensors,
            dict(zip(("x", "y"), images(), strict=True)) | {"name": "a"},
        ),
        "data.from_dataset": (
            uiat.data.from_dataset,
            {"dataset": [(torch.rand(SHAPE), i % 2) for i in range(4)], "name": "a"},
        ),
        "losses.log_probabilities": (losses.log_probabilities, {"logits": _logits()}),
        "losses.cross_entropy": (losses.cross_entropy, {"logits": _logits(), "y": labels, "label_smoothing": 0.1}),
        "losses.kl": (losses.kl, {"log_p": _logits().log_softmax(1), "log_q": _logits().log_softmax(1)}),
        "losses.margin": (losses.margin, {"logits": _logits(), "y": labels}),
        "losses.boosted_cross_entropy": (losses.boosted_cross_entropy, {"logits": _logits(), "y": labels}),
        "losses.dlr": (losses.dlr, {"logits": _logits(), "y": labels}),
        "losses.dlr_targeted": (losses.dlr_targeted, {"logits": _logits(), "y": labels, "target": (labels + 1) % 4}),
        "total": (uiat.total, {"terms": {"ce": torch.ones(3), "correct": torch.ones(3, dtype=torch.bool)}}),
        "Batch": (Batch, dict(zip(("x", "y", "index"), (*images(), torch.arange(8)), strict=True))),
    }
    calls |= {name: (function, partial(dict, given)) for name, (function, given) in plain.items()}
    attack = uiat.PGD(threat=threat, step_size=0.05, steps=2)
    z = uiat.UniversalPerturbation(torch.zeros(CLASSES, *SHAPE), Linf(0.05))
    data = uiat.data.from_tensors(*images(16))
    x, y = images()
    calls |= {
        "PGD.__call__": (attack, _judged),
        "PGD.perturb": (attack.perturb, _judged),
        "minimum_norm": (uiat.minimum_norm, partial(_judged, norm="Linf", method="fmn", steps=3)),
        "evaluate": (
            uiat.evaluate,
            partial(_judged, threat=threat, attacks=["fgsm"], batch_size=4, seed=0, selfchecks=False),
        ),
        "radius_sweep": (
            uiat.radius_sweep,
            partial(_judged, threat=threat, epsilons="0,0.1", attack="pgd-2", batch_size=4),
        ),
        "evaluate_unseen": (evaluate_unseen, partial(_judged, trained=threat, threats=["L2:0.5"], attack="pgd-2")),
        "corruption_accuracy": (corruption_accuracy, partial(_judged, kinds=["fog"], severities=[1], batch_size=4)),
        "examine": (evaluation.examine, partial(_judged, threat=threat, n=8, batch_size=8)),
        "correct_under": (evaluation.correct_under, partial(_judged, settings=attack, batch_size=4, seed=0)),
        "check_model": (models.check_model, partial(dict, model=net(), x=x, num_classes=CLASSES)),
        "check_training": (models.check_training, partial(dict, model=net(), x=x, num_classes=CLASSES)),
        "make_step": (_step, _base_step),
        "fit": (
            uiat.fit,
            lambda: (
                {"model": net(), "train_data": images(24), "objective": uiat.Standard(), "batch_size": 8, "seed": 0}
                | {"optimisation": uiat.Optimisation(epochs=1), "validation_data": images(), "augment": "none"}
            ),
        ),
        "UniversalPerturbation": (uiat.UniversalPerturbation, lambda: {"z": z.z, "threat": z.threat}),
        "UniversalPerturbation.__call__": (z, lambda: {"x": x, "y": y}),
        "data.Loader": (
            uiat.data.Loader,
            lambda: {"data": data, "batch_size": 4, "augment": "crop", "device": "cpu", "seed": 0},
        ),
        "data.split_validation": (uiat.data.split_validation, lambda: {"data": data, "size": 4, "seed": 0}),
        "data.stratified_subset": (uiat.data.stratified_subset, lambda: {"data": data, "n": 8, "seed": 0}),
        "data.statistics": (uiat.data.statistics, lambda: {"data": data, "sample": 5}),
        "data.as_float": (uiat.data.as_float, lambda: {"images": data.images}),
        "input_gradient": (input_gradient, lambda: {"loss": lambda v: (v.sum().expand(len(v)), v), "x": x}),
        "projected_gradient": (
            projected_gradient,
            lambda: (
                {"loss": lambda v: (v.sum().expand(len(v)), v), "x": x, "start": x, "threat": threat}
                | {"step_size": 0.05, "steps": 2, "descend": False}
            ),
        ),
    }
    for objective in (
        uiat.Standard(),
        uiat.PGDAT(attack=attack),
        uiat.Trades(),
        uiat.Mart(attack=attack),
        uiat.UIAT(attack=attack),
    ):
        state = objective.init(num_classes=CLASSES, image_shape=SHAPE, num_examples=8)
        calls[f"{objective.name}.init"] = (objective.init, lambda: {"num_classes": CLASSES, "image_shape": SHAPE})
        calls[f"{objective.name}.perturb"] = (
            objective.perturb,
            lambda state=state: {
                "model": net(),
                "batch": Batch(*images(), torch.arange(8)),
                "state": state,
                "epoch": 0,
            },
        )
        calls[f"{objective.name}.loss"] = (objective.loss, lambda: {"model": net(), "examples": _examples()})
    return calls


def wrong_values() -> list[Any]:
    """Return values of every kind that people give by mistake."""
    x, y = images()
    return [
        *(None, True, False, 0, -1, 3, 10**20, 0.5, -0.5, 1e10, math.nan, math.inf, 1j),
        *("", "no", "8/255", "8", "Linf:8/255", "linf", "eight", "1e999999999", "a" * 5000, "a\0b", b"x"),
        *([], [1, 2], ["pgd-2"], (), {}, {"a": 1}, set(), object(), int, uiat.PGD, uiat.UIAT, len, lambda v: v),
        *(np.zeros((2, 3)), np.float32(0.5), np.int64(3), Path("missing"), torch.device("cpu"), torch.float16),
        *(x, y, x.numpy(), y.tolist(), (x, y), (x.numpy(), y.numpy()), torch.tensor(3), torch.tensor([])),
        *(Linf(0.1), uiat.L2(0.5), uiat.PGD(), uiat.UIAT(), uiat.Run(), Batch(x, y), Examples(x, y)),
        *(
            net(),
            net(2),
            nn.Flatten(),
            nn.Linear(3, 2),
            nn.Conv2d(3, 4, 3),
            net().half(),
            net().double(),
            net().to("meta"),
        ),
        *(Strange(lambda z: (z, z)), Strange(lambda z: {"logits": z}), Strange(lambda z: z.softmax(1))),
        *(
            Strange(lambda z: z.detach()),
            Strange(lambda z: z * math.nan),
            Strange(lambda z: z[0]),
            _sgd(),
            _sgd(net()).state_dict(),
        ),
    ]


def change_tensor(value: Tensor, choose: Choose) -> Tensor:
    """Change the shape, the dtype, the layout or the values of a tensor."""
    changes: dict[str, Callable[[Tensor], Any]] = {
        "half": lambda v: v.half(),
        "double": lambda v: v.double(),
        "bfloat16": lambda v: v.bfloat16(),
        "long": lambda v: v.long(),
        "int": lambda v: v.int(),
        "bool": lambda v: v.bool(),
        "bytes": lambda v: (255 * v).to(torch.uint8),
        "complex": lambda v: v.to(torch.complex64),
        "255": lambda v: 255 * v,
        "negative": lambda v: -v - 1,
        "nan": lambda v: v * math.nan if v.is_floating_point() else v - 100,
        "inf": lambda v: v + math.inf if v.is_floating_point() else v + 2**40,
        "empty": lambda v: v[:0],
        "fewer": lambda v: v[:3],
        "flat": lambda v: v.flatten(),
        "rows": lambda v: v.flatten(1) if v.ndim > 1 else v[:, None],
        "scalar": lambda v: v.flatten()[0],
        "channels last": lambda v: v.permute(0, 2, 3, 1) if v.ndim == 4 else v,
        "memory format": lambda v: v.contiguous(memory_format=torch.channels_last) if v.ndim == 4 else v.flip(0),
        "strided": lambda v: v.repeat_interleave(2, dim=0)[::2],
        "expanded": lambda v: v[:1].expand_as(v),
        "grey to colour": lambda v: v.repeat(1, 3, 1, 1) if v.ndim == 4 else v,
        "small": lambda v: v[..., :4],
        "gradient": lambda v: v.clone().requires_grad_() if v.is_floating_point() else v,
        "no leaf": lambda v: v.clone().requires_grad_() * 1 if v.is_floating_point() else v,
        "sparse": lambda v: v.to_sparse(),
        "meta": lambda v: v.to("meta"),
        "numpy": lambda v: v.numpy(),
        "list": lambda v: v.tolist(),
    }
    return changes[choose(sorted(changes))](value.clone())


@dataclass
class Outcome:
    """What came of a call: accepted, refused, traceback, hang, or nonsense that was accepted."""

    kind: str
    what: str
    message: str = ""


CALLS = _make_calls()


def mutated_call(choose: Choose) -> tuple[str, dict[str, Any], str]:
    """Draw a call, and change, replace, leave out or misspell one of its arguments; returns that argument too."""
    name = choose(sorted(CALLS))
    given = CALLS[name][1]()
    argument = choose(sorted(given))
    value, how = given[argument], choose(("replace", "replace", "change", "change", "drop", "misspell"))
    if how == "drop":
        del given[argument]
    elif how == "misspell":
        given[argument + choose(("s", "_", "1"))] = given.pop(argument)
    elif how == "change" and isinstance(value, Tensor):
        given[argument] = change_tensor(value, choose)
    elif how == "change" and isinstance(value, Batch | Examples):
        field = choose(("x", "y"))
        with contextlib.suppress(UserError):
            given[argument] = type(value)(**{**vars(value), field: change_tensor(getattr(value, field), choose)})
    else:
        # What a caller's own function raises is the caller's.
        own = name in ("input_gradient", "projected_gradient") and argument == "loss"
        given[argument] = choose([each for each in wrong_values() if not (own and callable(each))])
    return name, given, argument


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def run_call(name: str, given: dict[str, Any], argument: str) -> Outcome:
    """Make a call, and say what came of it."""
    shown = f"{name}({argument}={_short(given.get(argument, '<left out>'))})"
    try:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), _limited():
            result = CALLS[name][0](**given)
    except UserError as error:
        text = str(error)
        named = names_culprit(text, argument, given) or text == _base_message(name)
        wrong = "\n" in text or len(text) > 1_000 or not named
        line = " ".join(text.split())[:300] + (" [two lines]" if "\n" in text else "")
        return Outcome("unnamed" if wrong else "refused", shown, line)
    except TimeoutError as error:
        return Outcome("hang", shown, str(error))
    except Exception as error:
        return Outcome("traceback", shown, f"{type(error).__name__}: {error}".replace("\n", " ")[:200])
    return Outcome("nonsense" if (why := find_nonsense(name, given, result)) else "accepted", shown, why)


@cache
def _base_message(name: str) -> str:
    """What a call is refused with as it is: for want of a run folder, say."""
    try:
        CALLS[name][0](**CALLS[name][1]())
    except UserError as error:
        return str(error)
    return ""


def names_culprit(text: str, argument: str, given: dict[str, Any]) -> bool:
    """True if a message names the argument, in its own word or in another, or repeats its value."""
    words = (argument, argument.rstrip("s"), *WORDS.get(argument, ()))
    value = given.get(argument)
    shown = value if isinstance(value, str) else repr(value)
    return any(word in text for word in words) or (len(shown) > 1 and shown[:30] in text)


def find_nonsense(name: str, given: dict[str, Any], result: Any) -> str:
    """Return what is wrong with an accepted result; "" for a right one."""
    if isinstance(result, Tensor) and result.is_floating_point() and not result.is_meta:
        finite = all(_is_finite(value) for value in given.values())
        if name != "minimum_norm" and finite and not _is_finite(result):
            return "values that are not finite"
        x = given.get("x")
        if name == "PGD.__call__" and (result.shape != x.shape or (result - x).abs().max() > 0.1 + 1e-2):
            return "outside the ball"
        if name.startswith("losses.") and "log_prob" not in name and result.shape != (len(next(iter(given.values()))),):
            return "not one value an example"
    accuracy = getattr(result, "accuracy", None)
    if isinstance(accuracy, dict) and not all(0 <= v <= 1 for v in accuracy.values() if isinstance(v, float)):
        return "an accuracy outside [0, 1]"
    if name.endswith(".loss"):  # of a model that gives NaN; the training loop stops on it
        return ""
    if isinstance(result, dict) and any(isinstance(v, Tensor) and v.isnan().any() for v in result.values()):
        return "a term that is NaN"
    return _find_wrong_field(result)


def _is_finite(value: Any) -> bool:
    plain = isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
    return not plain or not value.is_floating_point() or bool(value.isfinite().all())


def _find_wrong_field(result: Any) -> str:
    """Return the field of a frozen dataclass of settings that has another type than its default."""
    if not type(result).__module__.startswith(("uiat.attacks", "uiat.config", "uiat.objectives", "uiat.inverse.adv")):
        return ""
    for name, field in getattr(type(result), "__dataclass_fields__", {}).items():
        value, default = getattr(result, name), field.default
        if isinstance(default, bool | int | float) and not isinstance(value, bool | int | float | str | None):
            return f"{name} is a {type(value).__name__}"
        if (isinstance(default, bool) and not isinstance(value, bool) and value != "auto") or value is math.nan:
            return f"{name} is {value!r}"
    return ""


def _short(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} {tuple(value.shape)} {value.layout} {value.device}"
    return " ".join(repr(value).split())[:80]


LINES = (
    ["train", "digits-standard", "optimisation.epochs=1", "model.width=4", "--run-dir", "run"],
    ["train", "digits-uiat", "--objective.weight", "2", "--optimisation.epochs=1", "data.subset=64"],
    ["train", "--config", "run.yaml"],
    ["train", "--resume", "run"],
    ["evaluate", "run", "-n", "20", "--attacks", "fgsm", "--threat", "Linf:8/255"],
    [
        "evaluate",
        "--model",
        "small-cnn",
        "--width",
        "4",
        "--data",
        "digits",
        "--epsilons",
        "0,0.1",
        "-n",
        "8",
        "--weights",
        "w.pth",
    ],
    ["sweep", "digits-standard", "objective.label_smoothing=0,0.1", "--seeds", "0,1"],
    ["analyse", "strength", "run", "--n", "10"],
    ["report", "run", "--out", "report.html"],
    ["show", "run"],
    ["cost", "digits-uiat", "model.width=4"],
    ["recipes", "digits-uiat"],
    ["paper", "inverse"],
)
ODD_WORDS = (
    *("", "-", "--", "---", "=", "==", "a=b", "seed=", "=3", "--seed", "--seed=", "-n", "--help=3", "-1", "nan", "inf"),
    *(
        "seed=nan",
        "seed=1e5",
        "seed=-1",
        "optimisation.epochs=1e9",
        "optimisation.epochs=2.5",
        "objective=3",
        "data=null",
    ),
    *(
        "objective.name=[]",
        "objective.name={}",
        "objective.name=",
        "objective.attack=[[[[",
        "optimisation.milestones=[a]",
    ),
    *(
        "objective.attack.restarts=99999999999999999999",
        "objective.weight=1e10",
        "objective.weight=.nan",
        "seed=2020-13-01",
    ),
    *("seed=" + "[" * 200, "seed=" + "9" * 5000, "seed=!!python/object:os.system x", "seed=&a [*a]", "name=\t\x1b[31m"),
    *(
        "objective.inverse.radius=1e999999999",
        "--epsilons",
        "0,1e-7,...,0.5",
        "1e999999999",
        "Linf:1e999999999",
        "L9:3",
    ),
    *(
        "/dev/zero",
        "/dev/null",
        "/",
        ".",
        "a" * 5000,
        "a\0b",
        "ünï",
        "😀",
        "%s",
        "{}",
        "--own-code",
        "--run-dir",
        "--config",
    ),
    *(
        "cifar10",
        "imagefolder:/nowhere",
        "model.name=../x.py:f",
        "model.width=1e400",
        "compute.device=cuda:99",
        "compute.device=meta",
    ),
)


def mutated_line(choose: Choose) -> list[str]:
    """Draw a command line, and put in, replace, cut, double or leave out some of its words."""
    words = [*choose(LINES)]
    for _ in range(choose((1, 1, 2))):
        at = choose(range(1, len(words) + 1)) if len(words) > 1 else 1
        how = choose(("insert", "replace", "replace", "cut", "drop", "double", "value"))
        word = words[at] if at < len(words) else ""
        if how == "insert":
            words.insert(at, choose(ODD_WORDS))
        elif how == "replace":
            words[at : at + 1] = [choose(ODD_WORDS)]
        elif how == "cut":
            words[at : at + 1] = [word[: len(word) // 2]]
        elif how == "double":
            words.insert(at, word)
        elif how == "value" and "=" in word:
            words[at] = f"{word.partition('=')[0]}={choose(ODD_WORDS)}"
        else:
            del words[at : at + 1]
    return words


@contextlib.contextmanager
def _no_training() -> Iterator[None]:
    fit, Training.fit = Training.fit, lambda self: None
    try:
        yield
    finally:
        Training.fit = fit


def run_line(words: list[str]) -> Outcome:
    """Run a command line in an empty folder, and say what came of it; trainings stop before their first step."""
    shown = " ".join(word if len(word) < 60 else f"{word[:60]}..." for word in words)
    out, err = io.StringIO(), io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        try:
            with _no_training(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _limited():
                code = main(words)
        except TimeoutError as error:
            return Outcome("hang", shown, str(error))
        except BaseException as error:
            return Outcome("traceback", shown, f"{type(error).__name__}: {error}"[:200])
    text = err.getvalue()
    if "longer than" in text and "TimeoutError" in text:
        return Outcome("hang", shown, text.strip().splitlines()[-1])
    if "Traceback" in text or code not in (0, 1, 2):
        return Outcome("traceback", shown, text.strip()[-200:])
    if code == 0 or (code == 1 and words[0] == "sweep"):  # 1: its runs stop before their first step, and fail
        return Outcome("accepted", shown)
    lines = [line for line in text.splitlines() if re.match(r"uiat: (error|fault)", line)]
    return Outcome("refused" if len(lines) == 1 and code == 2 else "unnamed", shown, " | ".join(lines) or text[-200:])
