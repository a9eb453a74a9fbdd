"""Models, images and short evaluations for the tests of `uiat.evaluate`."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import uiat
from support import tiny
from support.helpers import replace_attack
from uiat import EvaluationResult, Linf
from uiat.attacks import APGD, FAB, Square
from uiat.threat import Threat

evaluate = partial(uiat.evaluate, selfchecks=False)
ATTACKS = ("pgd-3-2", "autoattack", "uap-class-2-targeted", "pgd-3-targeted")
# As a model that answers at random is evaluated; one that does not has the same verdicts.
ASKING = {"attacks": ("pgd-3-2-eot-2", "apgd-ce-eot-2", "square-eot-2"), "calls": 3}


class Threshold(nn.Module):
    """Two classes told apart by the mean of the pixels, class 1 being above 0.5."""

    def __init__(self, *, pixels: int = 16) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.full((pixels,), 20.0 / pixels))
        self.calls: Counter[str] = Counter()

    def forward(self, x: Tensor) -> Tensor:
        self.calls["grad" if torch.is_grad_enabled() else "eval"] += 1
        self.calls["images"] += len(x)
        score = x.flatten(1) @ self.w - 10
        return torch.stack([-score, score], dim=1)


def ramp(n: int = 11) -> tuple[Tensor, Tensor]:
    """Grey images from 0.25 to 0.75 in steps of 0.05: at distance |grey - 0.5| from the boundary, in Linf."""
    grey = torch.linspace(0.2525, 0.7525, n)
    return grey.view(-1, 1, 1, 1).expand(-1, 1, 4, 4).clone(), (grey > 0.5).long()


def network(classes: int = 3) -> nn.Module:
    """A network for images of 3 x 3 pixels, in double precision, so that rounding decides nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, classes)).double()


def correct_images(model: nn.Module, n: int = 40) -> tuple[Tensor, Tensor]:
    """Images with the labels that a `network` gives them."""
    x = torch.rand(n, 1, 3, 3, dtype=torch.float64)
    return x, model(x).argmax(dim=1)


def net(seed: int = 3) -> nn.Module:
    """A network for `images`."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 3)).double()


def images(n: int = 24) -> tuple[Tensor, Tensor]:
    """Images of 4 x 4 pixels, all but the first of which `net` classifies correctly."""
    x = torch.rand(n, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    y = net()(x).argmax(1)
    y[0] = (y[0] + 1) % 3
    return x, y


def to_fit(n: int = 40) -> tuple[Tensor, Tensor]:
    """Images to fit universal perturbations on, with the labels that `net` gives them."""
    x = torch.rand(n, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    return x, net()(x).argmax(1)


def shorten_ensembles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the attacks of the ensembles budgets for tests."""
    replace_attack(monkeypatch, "apgd-ce", lambda threat: APGD(threat=threat, loss="ce", iterations=5))
    replace_attack(monkeypatch, "apgd-dlr", lambda threat: APGD(threat=threat, loss="dlr", iterations=5))
    replace_attack(monkeypatch, "apgd-t", lambda threat: APGD(threat=threat, loss="targeted-dlr", iterations=3))
    replace_attack(monkeypatch, "fab-t", lambda threat: FAB(threat=threat, iterations=3))
    replace_attack(monkeypatch, "square", lambda threat: Square(threat=threat, iterations=12))


def evaluate_short(
    path: Path | None = None, *, model: nn.Module | None = None, threat: Threat | None = None, **options: Any
) -> EvaluationResult:
    """Evaluate `net` on `images`, with a state file that is written at every chance; see the fixture `short`."""
    x, y = images()
    settings = {"attacks": ATTACKS, "batch_size": 9, "save_minutes": 0.0, "keep_examples": True, "fit": to_fit()}
    settings |= options
    return evaluate(model or net(), x, y, threat=threat or Linf(0.05), state=path, **settings)


def assert_same(one: EvaluationResult, other: EvaluationResult) -> None:
    """Two evaluations have come to the same verdicts and examples."""
    names = ("accuracy", "broken_by", "stages", "intervals", "per_class", "calibration", "budgets", "calls")
    assert {name: getattr(one, name) for name in names} == {name: getattr(other, name) for name in names}
    assert one.examples is not None
    assert other.examples is not None
    assert torch.equal(one.examples, other.examples)


def stop_at(call: int) -> tuple[Callable[[str, float], None], list[str]]:
    """Return a bound that raises when it is called for the so-manieth time, and the list of its calls."""
    calls: list[str] = []

    def bound(stage: str, accuracy: float) -> None:
        calls.append(stage)
        if len(calls) == call:
            raise tiny.Killed

    return bound, calls


def evaluate_parts(folder: Path, **options: Any) -> dict[str, Any]:
    """Evaluate in one or several processes, and return what has to be the same in all of them."""
    x, y = images(21)
    options |= {"batch_size": 3, "keep_examples": True, "state": folder / "state"}
    with pytest.MonkeyPatch.context() as monkeypatch:  # and not by a fixture: other processes call this too
        shorten_ensembles(monkeypatch)
        options = {"attacks": ["pgd-3", "uap-2-targeted", "pgd-2-targeted", "autoattack-quick"], **options}
        options["fit"] = to_fit()
        result = evaluate(net(), x, y, threat=Linf(0.06), **options)
    record = result.to_json()
    names = ("accuracy", "broken_by", "stages", "intervals", "per_class", "calibration", "passes", "calls")
    assert result.examples is not None
    return {name: record[name] for name in names} | {"examples": result.examples.tolist()}
