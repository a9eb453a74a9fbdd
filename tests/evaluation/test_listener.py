"""Progress and the bound, as they are reported to whoever shows an evaluation."""

import pytest

from support.evaluations import Threshold, correct_images, evaluate, network, ramp
from uiat import Linf


def test_progress_is_reported_after_each_batch():
    x, y = ramp(10)
    calls = []
    evaluate(
        Threshold(),
        x,
        y,
        threat=Linf(0.01),
        attacks=["pgd-1-2"],
        batch_size=4,
        progress=lambda name, done, total: calls.append((name, done, total)),
    )
    assert calls[:3] == [("clean", 4, 10), ("clean", 8, 10), ("clean", 10, 10)]
    assert calls[-1] == ("pgd-1-2", 20, 20)


@pytest.mark.usefixtures("short")
def test_the_bound_falls_to_the_worst_case(caplog):
    model = network()
    x, y = correct_images(model)
    calls = []
    with caplog.at_level("INFO", logger="uiat"):
        result = evaluate(
            model,
            x,
            y,
            threat=Linf(0.1),
            attacks=["pgd-3", "autoattack-quick"],
            bound=lambda *words: calls.append(words),
        )
    assert [accuracy for _, accuracy in calls] == sorted((accuracy for _, accuracy in calls), reverse=True)
    assert calls[0][0] == "clean"
    assert calls[-1] == ("apgd-t", result.accuracy["worst"])
    assert "initial accuracy: 100.00%" in caplog.text
    assert f"in the worst case so far, after pgd-3: at most {result.accuracy['pgd-3']:.2%}" in caplog.text


@pytest.mark.usefixtures("short")
def test_progress_of_an_ensemble_is_that_of_all_its_stages():
    model = network()
    x, y = correct_images(model, 12)
    calls = []
    evaluate(model, x, y, threat=Linf(0.05), attacks=["autoattack-quick"], progress=lambda *words: calls.append(words))
    done = [done for name, done, _ in calls if name == "autoattack-quick"]
    assert done == sorted(done)
    assert calls[-1] == ("autoattack-quick", 11, 11)  # 5 iterations, and 3 for each of two targets
