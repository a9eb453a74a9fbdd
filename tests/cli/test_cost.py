"""`uiat cost`: a table of a recipe's phases, and what is refused."""

import json

import pytest

from uiat.cli import main


@pytest.mark.usefixtures("unchecked")
def test_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"matrix": 2e9, "convolution": 1e9}
    monkeypatch.setattr("uiat.training.cost._measure_rates", lambda device: {"fp32": rates, "bf16": rates})
    assert main(["cost", "digits-uiat-one-off", "model.width=4", "--steps", "1", "--threads", "1"]) == 0
    shown = capsys.readouterr().out
    assert "1-10" in shown
    assert "25 F" in shown
    assert "GFLOP/s" in shown
    assert "kept between steps: z (10, 1, 8, 8) float32 0.00244 MiB" in shown
    assert "ms beside its passes" in shown
    heads = next(line for line in shown.splitlines() if "epochs" in line)
    assert heads.count("floor") == 2  # fp32 and bf16, whole words in 80 columns
    assert main(["cost", "digits-pgd-at", "model.width=4", "--steps", "1", "--json"]) == 0
    costs = json.loads(capsys.readouterr().out)
    assert (costs["kind"], costs["name"], costs["batch_size"]) == ("cost", "digits-pgd-at", 64)
    assert (costs["costs"][0]["epochs"], costs["costs"][0]["units"]) == (40, 23.0)
    assert costs["costs"][0]["floor_seconds"]["fp32"] == costs["costs"][0]["flops"] / 2e9
    assert main(["cost"]) == 2
    assert main(["cost", "digits-uait"]) == 2
    assert "digits-uiat" in capsys.readouterr().err
