"""A stage on a model that answers at random ends in fresh calls, which no attack has seen."""

import torch
from torch import nn

from uiat import Linf
from uiat.attacks import Noise
from uiat.evaluation.engine.asking import conclude, run_asking
from uiat.evaluation.engine.attack_target import AttackTarget
from uiat.evaluation.engine.calls import CallRule
from uiat.evaluation.engine.outcomes import Outcomes
from uiat.evaluation.engine.search_runner import AdaptiveBatchSize
from uiat.models.inspect import Target
from uiat.system.distributed import Rank


class Script(nn.Module):
    """Answers wrongly in the calls of a list, 1 for a wrong one, counted from where the stage begins."""

    def __init__(self):
        super().__init__()
        self.answers = []

    def forward(self, x):
        wrong = self.answers.pop(0) if self.answers else 0
        score = torch.full((len(x),), 1.0 - 2 * wrong) + 0 * x.flatten(1).sum(1)
        return torch.stack([score, -score], dim=1)


def test_a_lucky_call_of_the_attack_breaks_nothing():
    script, x, y = Script(), torch.full((1, 1, 2, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    model = Target(script, x, classes=2)
    target = AttackTarget(model, x, y, torch.arange(1), AdaptiveBatchSize(1), rule=CallRule(calls=3, wrong=2))
    outcomes = Outcomes(torch.arange(1))
    correct, _ = run_asking(target, outcomes, Rank(), "clean", "clean", None)
    outcomes.end_stage("clean", "clean", correct, x)
    noise = Noise(threat=Linf(0.1), iterations=2)
    # One query finds a wrong answer, which not all of three calls confirm; the other finds none. Then the best of the
    # attempt is tried, and in the end the fresh calls decide.
    script.answers = [1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0]
    correct, _ = run_asking(target, outcomes, Rank(), "noise", "noise", noise)
    assert correct.tolist() == [True]
    assert outcomes.asked.most_wrong["noise"].tolist() == [1]
    outcomes.end_stage("noise", "noise", correct, x)
    script.answers = [0, 0, 0, 0, 0, 1, 0, 1]
    correct, _ = run_asking(target, outcomes, Rank(), "again", "noise", noise)
    assert correct.tolist() == [False]
    assert conclude(target, outcomes, Rank(), "again")
    assert outcomes.asked.correct_calls["again"].tolist() == [1, 1, 1]  # of calls that chose nothing
    assert not conclude(target, outcomes, Rank(), "again")
