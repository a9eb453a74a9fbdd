"""The stages of an evaluation on the images of a process; `test_evaluator` and `test_state_file` test the whole."""

import logging

import torch

from uiat.evaluation.engine.outcomes import Outcomes, append_outcomes
from uiat.evaluation.engine.run import announce
from uiat.evaluation.listener import Callbacks
from uiat.system.distributed import Rank


def part(index, correct, fgsm):
    outcomes = Outcomes(torch.tensor(index), confidence=torch.ones(len(index)))
    for name, mask in (("clean", correct), ("fgsm", fgsm)):
        outcomes.end_stage(name, name, torch.tensor(mask), torch.zeros(len(index), 1))
        outcomes.add_cost(name, name, {"seconds": 1.5, "forward": len(index)})
    return outcomes


def test_parts_are_added_up_and_announced(caplog):
    whole = append_outcomes(part([0, 1], [True, True], [True, False]), part([2], [False], [False]))
    assert whole.index.tolist() == [0, 1, 2]
    assert [whole.names[i] if i >= 0 else "" for i in whole.breaker.tolist()] == ["", "fgsm", "clean"]
    assert whole.costs["fgsm"]["fgsm"] == {"seconds": 3.0, "forward": 3}
    heard = []
    with caplog.at_level(logging.INFO, logger="uiat"):
        listener = Callbacks(None, lambda stage, bound: heard.append((stage, round(bound, 3))))
        announce(whole, "fgsm", "fgsm", n=3, rank=Rank(), listener=listener)
    assert heard == [("fgsm", 0.333)]
    assert "robust accuracy after FGSM: 33.33% (total time 6.0 s)" in caplog.text
