"""What training gives back, and how it is shown."""

import torch

import uiat
from support import tiny


def test_the_summary_names_model_epochs_and_folder(tmp_path):
    trained = uiat.train(tiny.run(), run_dir=tmp_path / "a")
    title, heading, best, last, *said = repr(trained).splitlines()
    parameters = sum(p.numel() for p in trained.model.parameters())
    assert title == f"trained Classifier of {parameters:,} parameters, 2 epochs, in {tmp_path / 'a'}"
    assert heading.split() == ["weights", "epoch", "clean", "robust"]
    row = trained.history[trained.best["epoch"]]
    assert best.split()[:3] == ["best", str(trained.best["epoch"] + 1), f"{100 * row['clean']:.2f}"]
    assert last.split()[:2] == ["last", "2"]
    assert said == ["accuracies on held-out training images; the model has its best weights", repr(trained.inverse)]


def test_a_model_that_was_never_validated_is_shown_too():
    assert "0 epochs" in repr(uiat.Trained(torch.nn.Linear(2, 2), [], None, None, None))
