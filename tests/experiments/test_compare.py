"""Two evaluations image by image, against counts made by hand, and McNemar's test against a sum of coin throws."""

from itertools import product

import pytest

from uiat.errors import UserError
from uiat.evaluation.record import write_record
from uiat.experiments.compare import compare, mcnemar

SUMS = {"images": "i", "labels": "l"}


def write(folder, broken, *, attacks=("clean", "fgsm", "pgd-20"), **changes):
    """An evaluation whose attacks broke images as is said; nothing but the record is in the folder."""
    folder.mkdir()
    n, so_far, accuracy = len(broken), set(), {}
    for name in attacks:
        so_far.add(name)
        accuracy[name] = sum(each not in so_far for each in broken) / n
    accuracy["worst"] = broken.count("") / n
    facts = {"data": "digits", "split": "test", "threat": "Linf:0.2", "n": n, "sums": SUMS, "which": "best"}
    write_record(folder / "evaluation.json", facts | {"accuracy": accuracy, "broken_by": broken} | changes)
    return folder


def test_counts_after_each_attack(tmp_path):
    a = write(tmp_path / "a", ["", "", "clean", "fgsm", "pgd-20", ""])
    b = write(tmp_path / "b", ["", "fgsm", "", "fgsm", "", "pgd-20"])
    found = compare(a, b)
    counts = {t.name: (t.both, t.only_a, t.only_b, t.neither) for t in found.tables}
    assert counts == {"clean": (5, 0, 1, 0), "fgsm": (3, 1, 1, 1), "pgd-20": (1, 2, 2, 1), "worst": (1, 2, 2, 1)}
    assert found.breakers(of_b=True) == {"fgsm": 1, "pgd-20": 1}
    assert [(row["index"], row["a"], row["b"]) for row in found.to_json()["differing"]] == [
        (1, "", "fgsm"),
        (2, "clean", ""),
        (4, "pgd-20", ""),
        (5, "", "pgd-20"),
    ]
    assert not found.notes


def test_other_attacks_share_their_beginning(tmp_path):
    a = write(tmp_path / "a", ["", "fgsm"])
    b = write(tmp_path / "b", ["square", ""], attacks=("clean", "square"))
    found = compare(a, b)
    assert [t.name for t in found.tables] == ["clean", "worst"]
    assert found.notes == ["the worst case is over clean, fgsm, pgd-20 for A and over clean, square for B"]


def test_attacks_outside_the_ball_break_nothing_and_have_no_row(tmp_path):
    budgets = {"fgsm": {"attack": "Spatial"}, "pgd-20": {"attack": "PGD"}}
    a = write(tmp_path / "a", ["", "pgd-20"], budgets=budgets)
    b = write(tmp_path / "b", ["pgd-20", ""], attacks=("clean", "pgd-20"))
    found = compare(a, b)
    assert [t.name for t in found.tables] == ["clean", "pgd-20", "worst"]
    assert not found.notes


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": "mnist"}, "the data is digits in the first and mnist in the second"),
        ({"threat": "Linf:0.1"}, "the threat model is Linf:0.2 in the first and Linf:0.1 in the second"),
        ({"sums": {"images": "x", "labels": "l"}}, "they are of other images"),
        ({"broken_by": []}, "lacks the verdict on each image"),
    ],
)
def test_other_images_are_one_line(tmp_path, changes, says):
    a, b = write(tmp_path / "a", ["", "fgsm"]), write(tmp_path / "b", ["", ""], **changes)
    with pytest.raises(UserError, match=f"cannot be compared: .*{says}"):
        compare(a, b)


def test_another_number_of_images_is_one_line(tmp_path):
    a, b = write(tmp_path / "a", ["", "fgsm"]), write(tmp_path / "b", ["", "", ""])
    with pytest.raises(UserError, match="the number of images is 2 in the first and 3 in the second"):
        compare(a, b)
    with pytest.raises(UserError, match="has no evaluation of what it holds now"):
        compare(a, tmp_path)


def test_the_test_counts_coin_throws():
    throws = [sum(coins) for coins in product((0, 1), repeat=7)]
    for heads in range(8):
        farther = sum(abs(each - 3.5) >= abs(heads - 3.5) for each in throws)
        assert mcnemar(heads, 7 - heads) == pytest.approx(farther / len(throws))
    assert mcnemar(2, 2) == 1
    assert mcnemar(5000, 4000) < 1e-20
