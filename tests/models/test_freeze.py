"""Parts of a model that training leaves as they are: their values, their BatchNorm statistics, their mode."""

import pytest
import torch
from torch import nn

import uiat
from support import tiny
from support.models import refusal
from uiat import Model
from uiat.models import build
from uiat.models.freeze import freeze_parameters
from uiat.training.open_run import start_run


def net():
    return build("preact-resnet8", num_classes=10, image_shape=(1, 8, 8), width=4)


def test_patterns_freeze_what_they_fit_and_say_how_many(caplog):
    model = net()
    with caplog.at_level("INFO", "uiat"):
        count = freeze_parameters(model, ["body.stage1.*", "head.bias"])
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if n.startswith("body.stage1.") or n == "head.bias"}
    weights = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    assert f"frozen: {count} of {len(list(model.parameters()))} parameters, {weights:,} of" in caplog.text
    assert len(frozen) == count


@pytest.mark.parametrize(
    ("patterns", "says"), [(["bodi.*"], "unknown parameter of model.freeze 'bodi.*'"), (["*"], "nothing to train")]
)
def test_patterns_that_cannot_be_meant_are_refused(patterns, says):
    assert says in refusal(freeze_parameters, net(), patterns)


@pytest.mark.parametrize("average", ["none", "ema"])
def test_frozen_parts_keep_values_and_statistics_while_the_rest_trains(tmp_path, average):
    model = Model(name="preact-resnet8", width=4, freeze=("body.*",))
    run = tiny.run(model=model, epochs=1, average=average, average_decay=0.5, weight_decay=0.1)
    with start_run(run, run_dir=tmp_path / "run") as training:
        before = {name: value.clone() for name, value in training.model.state_dict().items()}
        training.fit()
    after = uiat.load(tmp_path / "run", "last").state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"head.weight", "head.bias"}


def test_frozen_batchnorm_is_in_eval_mode_in_a_training_step(tmp_path):
    model = Model(name="preact-resnet8", width=4, freeze=("body.stage1.*",))
    modes = {}
    with start_run(tiny.run(model=model, epochs=1), run_dir=tmp_path / "run") as training:
        norms = {n: m for n, m in training.model.named_modules() if isinstance(m, nn.BatchNorm2d)}
        for name, norm in norms.items():
            norm.register_forward_hook(lambda m, i, o, name=name: modes.setdefault(name, []).append(m.training))
        training.fit()
    assert all(not any(modes[name]) for name in norms if name.startswith("body.stage1."))
    assert any(any(modes[name]) for name in norms if name.startswith("body.stage2."))


def test_a_frozen_run_resumes_bit_for_bit(tmp_path):
    run = tiny.run(model=Model(name="preact-resnet8", width=4, freeze=("body.stage1.*",)))
    uiat.train(run, run_dir=tmp_path / "whole", progress=False)
    with pytest.raises(tiny.Killed):
        uiat.train(run, run_dir=tmp_path / "cut", listener=tiny.Killer(4), progress=False)
    uiat.resume(tmp_path / "cut", progress=False)
    assert tiny.differences(tmp_path / "cut", tmp_path / "whole") == []


def test_dropout_and_drop_path_are_off_while_crafting_and_on_in_the_loss():
    timm = pytest.importorskip("timm")
    path, drop = timm.layers.DropPath(0.5), nn.Dropout(0.5)
    model = nn.Sequential(path, nn.Flatten(), drop, nn.Linear(64, 4))
    seen = {path: [], drop: []}
    for layer in seen:
        layer.register_forward_hook(lambda m, i, o: seen[m].append((torch.is_grad_enabled(), torch.equal(i[0], o))))
    step = uiat.make_step(
        model,
        uiat.PGDAT(attack=tiny.attack(3)),
        torch.optim.SGD(model.parameters(), lr=0.0),
        num_classes=4,
        image_shape=(1, 8, 8),
    )
    x, y = tiny.tensors()
    step.check(uiat.Batch(x, y))
    for passes in seen.values():
        passes.clear()
    step(uiat.Batch(x, y))
    for passes in seen.values():
        assert [untouched for _, untouched in passes] == [True, True, True, False]
