"""Opening a run: everything is there before its first step, and the best weights after its last."""

import torch

import uiat
from support import tiny
from uiat.training.open_run import reopen_run, start_run
from uiat.training.result import load_best


def test_a_started_run_has_its_folder_its_lock_and_no_step(tmp_path):
    with start_run(tiny.run(), run_dir=tmp_path / "run") as training:
        assert (training.epoch, training.position, training.history) == (0, 0, [])
        assert (tmp_path / "run" / "config.yaml").exists()
        assert training.teachers.method is None
        assert not any(p.grad is not None for p in training.model.parameters())


def test_a_finished_run_that_is_opened_again_gives_its_best_weights(tmp_path):
    trained = uiat.train(tiny.run(epochs=3), run_dir=tmp_path / "run")
    with reopen_run(tmp_path / "run") as training:
        assert training.epoch == 3
        model = load_best(training)
    assert not model.training
    assert all(torch.equal(v, trained.model.state_dict()[k]) for k, v in model.state_dict().items())
    assert model.threat == trained.model.threat
