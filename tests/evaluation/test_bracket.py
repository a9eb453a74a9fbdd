"""The bracket of an evaluation under way holds the accuracy on all images; it stops once that is narrow."""

import numpy as np
import pytest
import torch
from torch import nn

import uiat
from uiat import Linf, UserError
from uiat.evaluation.bracket import Bracket, in_random_order


def test_the_interval_at_the_end_holds_the_accuracy_of_all_images():
    """Stopping looks at the interval after each part, which must not make it too bold."""
    rng, held, runs = np.random.default_rng(0), 0, 600
    for run in range(runs):
        robust = (10, 150, 400, 950)[run % 4]
        verdicts = rng.permutation(np.arange(1_000) < robust)
        brackets = (Bracket(k, int(verdicts[:k].sum()), 1_000) for k in range(50, 1_001, 50))
        low, high = next(bracket.interval for bracket in brackets if bracket.is_within(0.1))
        held += low <= robust / 1_000 <= high
    assert held / runs > 0.925


def test_bounds_are_certain_and_meet_at_the_end():
    assert Bracket(0, 0, 10).interval == [0, 1]
    assert Bracket(4, 1, 10).bounds == [0.1, 0.7]
    assert Bracket(4, 1, 10, in_random_order=False).interval == [0.1, 0.7]
    assert Bracket(10, 3, 10).interval == Bracket(10, 3, 10).bounds == [0.3, 0.3]


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), torch.rand(300, 1, 4, 4)
    return model, x, model(x).argmax(1)


OPTIONS = {"threat": Linf(0.08), "attacks": ["fgsm"], "selfchecks": False}


def test_an_evaluation_stops_once_it_knows_enough_and_a_wider_one_before(case):
    whole = uiat.evaluate(*case, **OPTIONS)
    seen = []
    wide, narrow = (uiat.evaluate(*case, until=w, bracket=seen.append, **OPTIONS) for w in (0.3, 0.1))
    order = in_random_order(*case[1:], seed=0)[1].tolist()
    for result in (wide, narrow):
        assert [whole.broken_by[i] for i in order[: result.n]] == result.broken_by
        low, high = result.until["interval"]
        assert low <= whole.accuracy["worst"] <= high <= low + result.until["width"]
        assert "with 95 % confidence" in str(result)
    assert 50 <= wide.n < narrow.n < 300
    assert wide.until["stopped"] is narrow.until["stopped"] is True
    assert [bracket.done for bracket in seen[-2:]] == [narrow.n - 50, narrow.n]
    every = uiat.evaluate(*case, until=1e-6, **OPTIONS)
    assert (every.n, every.until["stopped"], every.accuracy) == (300, False, whole.accuracy)


def test_it_is_resumed_where_it_was_stopped(case, tmp_path):
    def stop(bracket):
        if bracket.done == 50:
            raise KeyboardInterrupt

    state = tmp_path / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        uiat.evaluate(*case, until=0.1, state=state, bracket=stop, **OPTIONS)
    done = []
    again = uiat.evaluate(*case, until=0.1, state=state, resume=True, progress=lambda *a: done.append(a), **OPTIONS)
    whole = uiat.evaluate(*case, until=0.1, **OPTIONS)
    assert (again.broken_by, again.until) == (whole.broken_by, whole.until)
    assert min(at for name, at, _ in done if name == "clean") > 50


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"until": 0.0}, "until must be above 0, but is 0"),
        ({"until": 1.0}, "until must be below 1, but is 1"),
        ({"until": 0.1, "calls": 3}, "until goes through the images part by part: leave out keep_examples and calls"),
    ],
)
def test_what_cannot_be_is_refused(case, more, says):
    with pytest.raises(UserError, match=says):
        uiat.evaluate(*case, **OPTIONS, **more)
    with pytest.raises(UserError, match="until takes images in random order: give images and labels as tensors"):
        uiat.evaluate(case[0], [case[1:]], until=0.1, **OPTIONS)
