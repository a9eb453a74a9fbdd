"""Outcomes of processes are packed, divided and merged without loss."""

import dataclasses

import pytest
import torch

from support.evaluations import evaluate_short
from uiat.evaluation.engine.outcomes import Outcomes, merge_outcomes
from uiat.evaluation.engine.state_file import StateFile
from uiat.system.distributed import Rank
from uiat.system.tensor_files import read_tensors


def test_outcomes_come_back_as_they_were():
    outcomes = Outcomes(torch.arange(3), examples=torch.zeros(3, 2), confidence=torch.rand(3), memory_limit=4)
    outcomes.end_stage("clean", "clean", torch.tensor([True, True, False]), torch.zeros(3, 2))
    outcomes.end_stage("b", "b", torch.tensor([True, False, False]), torch.ones(3, 2))
    outcomes.end_stage("a", "a", torch.tensor([False, True, False]), torch.full((3, 2), 2.0))
    outcomes.add_cost("b", "b", {"seconds": 0.5})
    outcomes.add_cost("b", "b", {"seconds": 0.25})
    outcomes.record_verdicts("a", torch.tensor([True, False, True]), torch.tensor([True, False, False]))
    outcomes.record_confidence("a", torch.tensor([True, False, True]), torch.zeros(3))
    again = Outcomes.unpack(outcomes.pack())
    assert list(again.correct) == ["clean", "b", "a"]
    assert again.verdicts("a").tolist() == [1, -1, 0]
    assert again.verdicts("b").tolist() == [-1, -1, -1]
    for field in dataclasses.fields(Outcomes):
        one, other = getattr(outcomes, field.name), getattr(again, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else str(one) == str(other)
    assert again.breaker.tolist() == [2, 1, 0]
    assert again.examples[:, 0].tolist() == [2, 1, 0]
    assert again.costs == {"b": {"b": {"seconds": 0.75}}}


@pytest.mark.usefixtures("short")
def test_the_outcomes_of_one_process_are_divided_and_merged_again(tmp_path):
    evaluate_short(tmp_path / "state")
    (outcomes, _) = StateFile(tmp_path / "state", read_tensors(tmp_path / "state")[1]["belongs"]).open(resume=True)
    parts = [merge_outcomes([outcomes], Rank(rank, 3)) for rank in range(3)]
    assert [len(part.index) for part in parts] == [8, 8, 8]
    again = merge_outcomes(parts, Rank())
    for name in ("names", "counts_after", "costs"):
        assert getattr(again, name) == getattr(outcomes, name)
    assert torch.equal(again.breaker, outcomes.breaker)
    assert torch.equal(again.examples, outcomes.examples)
    assert torch.equal(again.confidence, outcomes.confidence)
    for masks in ("correct", "verdict_by_stage", "confidence_under"):
        one, other = getattr(outcomes, masks), getattr(again, masks)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_state_files_keep_their_names():
    """A half-done evaluation of an earlier version is resumed: these are the names in its file."""
    outcomes = Outcomes(torch.arange(2), examples=torch.zeros(2, 1), confidence=torch.rand(2))
    outcomes.end_stage("clean", "clean", torch.tensor([True, False]), torch.zeros(2, 1))
    outcomes.record_verdicts("fgsm", torch.tensor([True, False]), torch.tensor([True, False]))
    tensors, plain = outcomes.pack()
    assert set(tensors) == {"index", "broken_by", "right/clean", "known/fgsm", "examples", "confidence"}
    assert set(plain) == {"names", "after", "spent", "limit", "order"}
