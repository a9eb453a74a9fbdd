"""What a randomised model was asked: the hardest examples are kept, saved, and put together from several processes."""

import torch

from uiat.evaluation.engine.asked import Asked, merge_asked


def asked_about(count, *, done=("clean",)):
    """Two images: their counts as they are and under an attack, and final calls of some names."""
    asked = Asked()
    asked.add("clean", torch.zeros(2, 1), torch.tensor([0, 3]))
    if count is not None:
        asked.add("pgd", torch.ones(2, 1), torch.tensor(count))
    for name in done:
        asked.conclude(name, torch.tensor([[True, False], [True, True]]))
    return asked


def test_the_hardest_example_of_each_attack_and_of_all():
    asked = asked_about([2, -1])
    asked.add("fgsm", torch.full((2, 1), 2.0), torch.tensor([1, 2]))
    assert {name: asked.of(name)[0].flatten().tolist() for name in ("pgd", "fgsm", "worst", "other")} == {
        "pgd": [1, 0],  # -1: it has no example of the second
        "fgsm": [2, 0],
        "worst": [1, 0],
        "other": [0, 0],
    }
    assert asked.most_wrong["worst"].tolist() == [2, 3]


def test_it_comes_back_from_tensors():
    whole = asked_about([2, 0], done=("clean", "worst"))
    again = Asked.unpack(whole.pack() | {"index": torch.arange(2)})
    assert again.pack().keys() == whole.pack().keys()
    assert all(torch.equal(value, again.pack()[name]) for name, value in whole.pack().items())
    assert Asked.unpack({"index": torch.arange(2)}) is None


def test_parts_are_put_together():
    ahead, behind = asked_about([2, 3], done=("clean", "pgd")), asked_about(None)
    one, other = (merge_asked([ahead, behind], torch.cat, is_first=first) for first in (True, False))
    assert one.most_wrong["pgd"].tolist() == [2, 3, 0, 3]  # what one part has not attacked is as it is
    assert list(one.correct_calls) == ["clean"]  # the calls that not all have made are made again
    assert (one.correct_calls["clean"].tolist(), other.correct_calls["clean"].tolist()) == ([2, 0], [0, 0])
    assert merge_asked([ahead, None], torch.cat, is_first=True) is None
