"""A teacher: trained first and kept, resumed bit for bit, given by a path, and refused where it does not fit."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn

import uiat
from support import tiny
from support.tiny import Killed, Killer
from uiat import ARD, HAT, RSLAD, Linf, Model, Optimisation, UserError, models
from uiat.runs.checkpoint import save_weights
from uiat.system.tensor_files import read_tensors
from uiat.training.open_run import reopen_run, start_run
from uiat.training.teacher import TeacherSource, check_teacher, method_need, teacher_run

ROBUST = ARD(attack=tiny.attack(), temperature=2.0)
RUN = tiny.run(objective=ROBUST)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "run"
    uiat.train(RUN, run_dir=folder)
    return folder


def test_the_teacher_is_a_run_of_its_own_in_the_folder(whole, tmp_path):
    uiat.train(replace(teacher_run(RUN, "pgd-at")), run_dir=tmp_path / "alone")
    assert tiny.differences(whole / "teacher", tmp_path / "alone") == []
    assert uiat.load(whole / "teacher").threat == Linf(0.2)
    assert not any("teacher" in name for name in read_tensors(whole / "checkpoint.safetensors")[0])


@pytest.mark.parametrize("at", [2, 5])
def test_a_run_killed_while_its_teacher_trains_is_resumed_bit_for_bit(at, whole, tmp_path):
    with pytest.raises(Killed), start_run(RUN, run_dir=tmp_path / "run") as training:
        training.prepare_teacher(Killer(at))
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    uiat.resume(tmp_path / "run")
    for part in ("", "teacher"):
        assert tiny.differences(whole / part, tmp_path / "run" / part) == []


@pytest.mark.parametrize("at", [1, 4])
def test_a_run_killed_after_its_teacher_is_resumed_bit_for_bit(at, whole, tmp_path):
    with pytest.raises(Killed):
        uiat.train(RUN, run_dir=tmp_path / "run", listener=Killer(at))
    assert len(tiny.metrics(tmp_path / "run" / "teacher")) == 2
    uiat.resume(tmp_path / "run")
    assert tiny.differences(whole, tmp_path / "run") == []


def test_a_folder_that_a_kill_left_unborn_is_no_teacher(whole, tmp_path):
    with start_run(RUN, run_dir=tmp_path / "run"):
        (tmp_path / "run" / "teacher").mkdir()  # and nothing more
    uiat.resume(tmp_path / "run")
    assert tiny.differences(whole, tmp_path / "run") == []


@pytest.mark.parametrize("name", ["teacher", "teacher/best.safetensors"])
def test_a_teacher_given_is_kept_and_the_run_resumes_without_the_original(name, whole, tmp_path):
    shutil.copytree(whole / "teacher", tmp_path / "teacher")
    run = replace(RUN, objective=replace(ROBUST, teacher=str(tmp_path / name)))
    with pytest.raises(Killed):
        uiat.train(run, run_dir=tmp_path / "run", listener=Killer(4))
    kept = read_tensors(tmp_path / "run" / "teacher" / "best.safetensors")
    assert kept[1]["source"] == str(tmp_path / name)
    shutil.rmtree(tmp_path / "teacher")
    uiat.resume(tmp_path / "run")
    # The same teacher, and so the same weights as where it was trained first.
    for which in ("best", "last"):
        one, two = (read_tensors(folder / f"{which}.safetensors")[0] for folder in (whole, tmp_path / "run"))
        assert all(torch.equal(one[key], two[key]) for key in one)


def test_weights_of_another_program_are_read_into_the_runs_own_architecture(whole, tmp_path, caplog):
    teacher = uiat.load(whole / "teacher")
    torch.save({"state_dict": {f"module.{k}": v for k, v in teacher.state_dict().items()}}, tmp_path / "w.pth")
    run = replace(RUN, objective=replace(ROBUST, teacher=str(tmp_path / "w.pth")))
    with start_run(run, run_dir=tmp_path / "run") as training:
        training.prepare_teacher()
        x = torch.rand(3, 1, 8, 8)
        torch.testing.assert_close(training.step.networks[0](x), teacher(x))
    assert "was not trained against an attack, as far as its file says" in caplog.text
    with reopen_run(tmp_path / "run") as training:
        training.prepare_teacher()
        torch.testing.assert_close(training.step.networks[0](x), teacher(x))


def test_the_random_numbers_of_the_run_do_not_depend_on_where_its_teacher_comes_from(whole, tmp_path):
    states = []
    for i, path in enumerate((None, str(whole / "teacher"))):
        run = replace(RUN, objective=replace(ROBUST, teacher=path))
        with start_run(run, run_dir=tmp_path / str(i)) as training:
            before = torch.get_rng_state()
            training.prepare_teacher()
            states += [before, torch.get_rng_state()]
    assert all(torch.equal(state, states[0]) for state in states)


# --- what is refused


def _write(folder, **spec):
    spec = {"name": "small-cnn", "num_classes": 10, "image_shape": [1, 8, 8], "width": 4, **spec}
    model = models.build(**spec)
    save_weights(folder / "best.safetensors", model, spec=spec, threat=None)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: None, "no such file"),
        (lambda path: path.mkdir(), "it is not the folder of a trained run"),
        (lambda path: (path.mkdir(), _write(path, num_classes=5)), "tells 5 classes apart, but this run has 10"),
        (
            lambda path: (path.mkdir(), _write(path, image_shape=[1, 16, 16])),
            r"was trained on images of shape \(1, 16, 16\), but those of this run have \(1, 8, 8\)",
        ),
        (lambda path: (path.mkdir(), (path / "best.safetensors").write_bytes(b"damaged")), "damaged"),
        (lambda path: path.write_bytes(b"damaged"), str),
    ],
    ids=["missing", "empty folder", "classes", "image size", "damaged", "no weights"],
)
def test_a_wrong_teacher_is_one_line_and_leaves_no_folder(make, says, tmp_path):
    make(tmp_path / "given")
    run = replace(RUN, objective=replace(ROBUST, teacher=str(tmp_path / "given")))
    with pytest.raises(UserError) as caught:
        uiat.train(run, run_dir=tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert "given" in str(caught.value)
    if says is not str:
        caught.match(says)
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_is_code_runs_on_request_only(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(tiny.DROPOUT_MODEL)
    code = f"{tmp_path}/net.py:net"
    given = tmp_path / "given"
    uiat.train(tiny.run(objective=uiat.PGDAT(attack=tiny.attack()), model=Model(name=code), epochs=1), run_dir=given)
    run = replace(RUN, objective=replace(ROBUST, teacher=str(given)))
    with pytest.raises(UserError, match="the run's model is code"):
        uiat.train(run, run_dir=tmp_path / "a")
    assert len(uiat.train(run, run_dir=tmp_path / "b", own_code=True).history) == 2


def test_check_teacher_asks_the_network_itself():
    pooled = models.build("small-cnn", num_classes=4, image_shape=(1, 8, 8), width=4)
    check_teacher(pooled, num_classes=4, image_shape=(1, 8, 8))
    with pytest.raises(UserError, match=r"the teacher takes no images of shape \(3, 8, 8\)"):
        check_teacher(pooled, num_classes=4, image_shape=(3, 8, 8))
    with pytest.raises(UserError, match="does not return logits"):
        check_teacher(nn.Conv2d(1, 2, 3), num_classes=2, image_shape=(1, 8, 8))


# --- the run of a teacher; one's own model; one's own loop


def test_the_run_of_a_teacher_is_the_students_without_its_add_ons():
    run = tiny.run(objective=RSLAD(attack=tiny.attack(loss="kl", start="gaussian")), awp=0.01, average="ema")
    teacher = teacher_run(run, "pgd-at")
    assert teacher.objective == uiat.PGDAT(attack=tiny.attack())
    assert (teacher.optimisation.awp, teacher.optimisation.average) == (0.0, "none")
    assert (teacher.data, teacher.model, teacher.seed) == (run.data, run.model, run.seed)
    natural = teacher_run(replace(run, objective=HAT(attack=tiny.attack(loss="kl"))), "standard")
    assert natural.objective == uiat.Standard()
    assert natural.validation.metric == "clean"


@pytest.mark.parametrize("kept", [True, False])
def test_fit_trains_a_teacher_of_ones_own_architecture_on_ones_own_data(kept, tmp_path):
    x, y = tiny.tensors()
    objective = HAT(attack=tiny.attack(loss="kl"))
    settings = {"objective": objective, "optimisation": Optimisation(epochs=1), "batch_size": 16}
    torch.manual_seed(0)
    model = tiny.linear()
    trained = uiat.fit(model, (x, y), run_dir=tmp_path / "run" if kept else None, **settings)
    assert "helper_ce" in " ".join(trained.history[0])
    assert (tmp_path / "run" / "teacher" / "best.safetensors").exists() == kept
    if kept:
        again = uiat.resume(tmp_path / "run", model=tiny.linear(), train_data=(x, y))
        assert torch.equal(again.model[1].weight, model[1].weight)


def test_a_loop_of_ones_own_gives_the_teacher():
    x, y = tiny.tensors(8)
    model = tiny.linear()
    make = {"num_classes": 4, "image_shape": (1, 8, 8)}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    objective = HAT(attack=tiny.attack(loss="kl"))
    step = uiat.make_step(model, objective, optimizer, **make)
    with pytest.raises(UserError, match="hat asks a teacher: give make_step one"):
        step(uiat.Batch(x, y, torch.arange(8)))
    with pytest.raises(UserError, match="tells 5 classes apart, but this run has 4"):
        uiat.make_step(model, objective, optimizer, teacher=tiny.linear(5), **make)
    step = uiat.make_step(model, objective, optimizer, teacher=tiny.linear(), **make)
    assert "helper_ce" in step(uiat.Batch(x, y, torch.arange(8)))


@pytest.mark.parametrize("at", [1, 4])
def test_a_teacher_starts_from_the_weights_that_the_run_starts_from(at, tmp_path):
    base = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
    torch.save(base.state_dict(), tmp_path / "base.pth")
    run = tiny.run(
        objective=HAT(attack=tiny.attack(loss="kl", start="gaussian")),
        model=Model(name="small-cnn", width=4, weights=str(tmp_path / "base.pth"), freeze=("body.*",)),
    )
    uiat.train(run, run_dir=tmp_path / "whole")
    teacher = uiat.load(tmp_path / "whole" / "teacher").state_dict()
    frozen = [name for name, _ in base.named_parameters() if name.startswith("body.")]
    assert frozen
    assert all(torch.equal(teacher[name], base.state_dict()[name]) for name in frozen)
    with pytest.raises(Killed), start_run(run, run_dir=tmp_path / "run") as training:
        training.prepare_teacher(Killer(at))
    uiat.resume(tmp_path / "run")
    for part in ("", "teacher"):
        assert tiny.differences(tmp_path / "whole" / part, tmp_path / "run" / part) == []


def test_a_teacher_without_an_attack_has_no_warm_up_of_one_and_one_with_an_attack_has_steps(tmp_path):
    run = tiny.run(objective=HAT(attack=tiny.attack(loss="kl", start="gaussian")), radius_warmup_epochs=1)
    assert teacher_run(run, "standard").optimisation.radius_warmup_epochs == 0
    assert teacher_run(run, "pgd-at").optimisation.radius_warmup_epochs == 1
    assert len(uiat.train(run, run_dir=tmp_path / "run").history) == 2
    free = tiny.run(objective=ARD(attack=tiny.attack(steps=0)), replays=3)
    assert teacher_run(free, "pgd-at").objective.attack.steps == 3


def test_nothing_is_written_through_a_link(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "run" / "teacher").symlink_to(tmp_path / "elsewhere")
    run = uiat.override(uiat.recipes.get("digits-hat"), [("model.width", "4")])
    source = TeacherSource(
        run=run,
        need=method_need(run),
        train=lambda *given: pytest.fail("it is trained"),
        blank=lambda: pytest.fail("it is built"),
        num_classes=10,
        image_shape=(1, 8, 8),
        device=torch.device("cpu"),
    )
    with pytest.raises(UserError, match="teacher is a link, and nothing is written through one"):
        source.obtain(tmp_path / "run")
