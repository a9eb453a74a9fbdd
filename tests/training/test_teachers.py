"""The teachers of a run: which are to be trained, in which order, and one at a time."""

from dataclasses import replace

import numpy as np

from support import tiny
from uiat import ARD
from uiat.training.open_run import start_run


def test_each_is_trained_by_itself_the_one_of_the_extra_images_first(tmp_path):
    np.savez(tmp_path / "a.npz", image=np.zeros((30, 8, 8), np.uint8))
    run = tiny.run(
        objective=ARD(attack=tiny.attack()),
        data={"extra": str(tmp_path / "a.npz"), "extra_labels": "teacher"},
        epochs=1,
    )
    with start_run(run, run_dir=tmp_path / "run") as training:
        labels, method = training.untrained_teachers
        assert (labels.teacher_run.objective.name, method.teacher_run.objective.name) == ("standard", "pgd-at")
        assert labels.teacher_run.data.extra is method.teacher_run.data.extra is None
        training.prepare_teacher(only=labels)
        assert training.untrained_teachers == [method]
        assert len(training.loader.extra.labels) == 30
        assert not hasattr(training.step.state, "teacher")
        training.prepare_teacher(only=method)
        assert training.untrained_teachers == []
        assert hasattr(training.step.state, "teacher")
    for name in ("extra-teacher", "teacher"):
        assert (tmp_path / "run" / name / "best.safetensors").exists()
    given = replace(run, data=replace(run.data, extra_teacher=str(tmp_path / "run" / "extra-teacher")))
    with start_run(given, run_dir=tmp_path / "given") as training:
        assert [source.need.field for source in training.untrained_teachers] == ["objective.teacher"]
