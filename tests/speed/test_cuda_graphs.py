"""When a step is recorded; what a recording does on a GPU is in test_cuda.py."""

import random
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch

import uiat
from uiat.data import Batch
from uiat.speed import cuda_graphs
from uiat.training.step import make_step


@pytest.fixture
def log(monkeypatch):
    """What was done: "step", "watch" or "record", with a recorder that needs no GPU; `waiting` of it wait."""
    done = []

    @contextmanager
    def waits():
        found = []
        yield found
        done[-1] = "watch"
        if done.waiting:
            done.waiting -= 1
            found.append("here")

    class Log(list):
        waiting = 0

    done = Log()

    def record(work, batch, epoch, parameters):
        done.append("record")
        return lambda batch: {"epoch": torch.tensor(epoch)}

    monkeypatch.setattr(cuda_graphs, "host_waits", waits)
    monkeypatch.setattr(cuda_graphs.RecordedStep, "record", staticmethod(record))
    return done


def batch(size=2):
    return Batch(torch.zeros(size, 1, 2, 2), torch.zeros(size).long(), torch.arange(size))


def graphed(log):
    def work(batch, epoch):
        log.append("step")
        return {"epoch": torch.tensor(epoch)}

    return cuda_graphs.GraphedSteps(work, ())


def test_a_step_is_made_then_watched_then_recorded_anew_each_epoch(log):
    step = graphed(log)
    assert [int(step(batch(), epoch)["epoch"]) for epoch in (0, 0, 0, 0, 1, 1)] == [0, 0, 0, 0, 1, 1]
    assert log == ["step", "watch", "record", "watch", "record"]


def test_a_forgotten_recording_is_made_anew(log):
    step = graphed(log)
    for _ in range(3):
        step(batch(), 0)
    step.forget()
    assert step.recorded is None
    for _ in range(2):
        step(batch(), 0)
    assert log == ["step", "watch", "record", "watch", "record"]


def test_another_shape_has_its_own_recording(log):
    step = graphed(log)
    for size in (2, 2, 2, 3, 3, 3):
        step(batch(size), 0)
    assert log == ["step", "watch", "record", "watch", "record"]


def test_batches_with_soft_labels_and_without_have_their_own_recordings(log):
    step, soft = graphed(log), replace(batch(), soft_labels=torch.full((2, 2), 0.5))
    for each in (soft, soft, soft, batch(), batch()):
        step(each, 0)
    assert log == ["step", "watch", "record", "watch", "record"]


def test_a_step_that_waits_now_and_then_is_watched_again(log):
    step, log.waiting = graphed(log), 2
    for _ in range(6):
        step(batch(), 0)
    assert log == ["step", "watch", "watch", "watch", "record"]


def test_a_step_that_always_waits_is_never_recorded(log, caplog):
    step, log.waiting = graphed(log), 9
    with caplog.at_level("INFO", logger="uiat"):
        for epoch in range(4):
            step(batch(), epoch)
            step(batch(), epoch)
    assert log == ["step", "watch", "watch", "watch", "step", "step", "step", "step"]
    assert "recorded as a CUDA graph: here" in caplog.text


@pytest.mark.parametrize("draw", [lambda: torch.rand(1), random.random, lambda: np.random.rand()])
def test_a_step_that_draws_on_the_host_is_never_recorded(log, caplog, draw):
    def work(batch, epoch):
        log.append("step")
        draw()
        return {}

    step = cuda_graphs.GraphedSteps(work, ())
    with caplog.at_level("INFO", logger="uiat"):
        for _ in range(6):
            step(batch(), 0)
    assert "record" not in log
    assert "it draws from" in caplog.text


@pytest.mark.parametrize("more", [{}, {"cuda_graphs": True}])
def test_other_devices_record_nothing(more):
    model = uiat.models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    assert make_step(model, uiat.UIAT(), optimizer, num_classes=10, image_shape=(1, 8, 8), **more).graphed is None


def test_plain_records_nothing():
    assert uiat.Compute().resolved.cuda_graphs
    assert not uiat.Compute(plain=True).resolved.cuda_graphs
