"""Models: sizes, stable keys, shapes, normalisation, the user's own, and every refusal."""

import hashlib
import sys
from functools import partial

import pytest
import torch
from torch import nn

from uiat.errors import UserError
from uiat.models import Classifier, Normalize, build, check_model, custom, names

SMALL = ("small-cnn", "mnist-cnn", "preact-resnet8")
SHAPES = ((1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (2, 9, 13))
cifar = partial(build, num_classes=10, image_shape=(3, 32, 32))
digits = partial(build, num_classes=10, image_shape=(1, 8, 8))


def on_meta(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):
        return cifar(name, **options)


def size(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def refusal(call, *args, **options) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---------------------------------------------------------------------------------------------------- built-in models


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("small-cnn", 104_042),
        ("mnist-cnn", 211_306),
        ("preact-resnet8", 173_986),
        ("preact-resnet18", 11_172_170),
        ("resnet18", 11_173_962),
        ("wrn-28-10", 36_479_194),  # 36.5M in table 4 of the Wide ResNet paper
        ("wrn-34-10", 46_160_474),
        ("wrn-16-4", 2_748_890),  # 2.7M there
    ],
)
def test_parameter_counts(name, parameters):
    assert size(on_meta(name)) == parameters


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("small-cnn", "fcf74d150de436ea"),
        ("mnist-cnn", "5d4fad51ece61b40"),
        ("preact-resnet8", "0f74953d3cd43e8f"),
        ("preact-resnet18", "6c5cb74042348ff0"),
        ("resnet18", "783fb1557f3ae232"),
        ("wrn-28-10", "04031cffb7c8a6aa"),
        ("wrn-34-10", "aee34d02c70d4b00"),
    ],
)
def test_state_dict_keys_never_change(name, digest):
    # A changed name or shape makes every saved model unreadable: change the digest only with a way to load old files.
    entries = [f"{key} {tuple(value.shape)}" for key, value in on_meta(name).state_dict().items()]
    assert hashlib.sha256("\n".join(entries).encode()).hexdigest()[:16] == digest


def test_state_dict_keys_read_well():
    assert list(digits("small-cnn").state_dict()) == [
        *("normalize.mean", "normalize.std"),
        *(
            f"body.stage{i}.{key}"
            for i in (1, 2, 3, 4)
            for key in (
                *("conv.weight", "norm.weight", "norm.bias"),
                *("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"),
            )
        ),
        *("head.weight", "head.bias"),
    ]
    keys = set(on_meta("preact-resnet18").state_dict())
    assert {"body.stem.weight", "body.stage2.0.shortcut.weight", "body.stage4.1.conv2.weight"} <= keys


def test_every_built_in_name_builds():
    assert {type(on_meta(name)) for name in names()} == {Classifier}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", SMALL)
def test_any_image_shape(name, shape):
    model = build(name, num_classes=7, image_shape=shape)
    x = torch.rand(2, *shape)
    logits, z = model(x), model.features(x)
    assert logits.shape == (2, 7)
    assert z.shape == (2, model.head.in_features)
    assert logits.isfinite().all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", [name for name in names() if name not in SMALL])
def test_any_image_shape_of_the_wide_models(name, shape):
    with torch.device("meta"):
        model = build(name, num_classes=7, image_shape=shape)
        assert model(torch.empty(2, *shape)).shape == (2, 7)
        assert model.features(torch.empty(2, *shape)).shape == (2, 640 if "wrn" in name else 512)


@pytest.mark.parametrize("name", ["small-cnn", "mnist-cnn", "preact-resnet8", "resnet18", "wrn-10-1"])
def test_the_head_reads_the_features(name):
    model = digits(name, width=8).eval()
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(model.head(model.features(x)), model(x))


def test_a_preactivation_block_by_hand():
    model = digits("preact-resnet8", width=4).eval()
    z = model.body.stem(model.normalize(torch.rand(2, 1, 8, 8)))
    block = model.body.stage2[0]
    z = model.body.stage1(z)
    activated = block.bn1(z).relu()
    expected = block.conv2(block.bn2(block.conv1(activated)).relu()) + block.shortcut(activated)
    torch.testing.assert_close(block(z), expected)


def test_a_basic_block_by_hand():
    model = digits("resnet18", width=4).eval()
    block, z = model.body.stage2[0], torch.rand(2, 4, 8, 8)
    expected = (block.bn2(block.conv2(block.bn1(block.conv1(z)).relu())) + block.shortcut(z)).relu()
    torch.testing.assert_close(block(z), expected)


def test_convolutions_start_at_he_fan_out_and_batch_norm_at_one():
    model = build("resnet18", num_classes=10, image_shape=(3, 32, 32), width=32)
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 5_000:
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_the_seed_decides_the_weights():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return torch.cat([p.flatten() for p in digits("small-cnn", width=8).parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


# --------------------------------------------------------------------------------------------------- width, activation


@pytest.mark.parametrize("name", names())
def test_width_is_channels_or_a_factor(name):
    default = on_meta(name).head.in_features
    assert on_meta(name, width=0.5).head.in_features == default // 2
    assert on_meta(name, width=1.0).head.in_features == default
    assert on_meta(name, width=8).head.in_features == 8 * (
        8 if name in {"mnist-cnn", "preact-resnet18", "resnet18"} else 4
    )


@pytest.mark.parametrize("name", ["small-cnn", "mnist-cnn", "preact-resnet8", "resnet18", "wrn-10-1"])
def test_activation_is_used_throughout(name):
    def kinds(**options: str) -> set[type]:
        return {type(m) for m in digits(name, width=8, **options).modules()} & {nn.ReLU, nn.SiLU}

    assert kinds() == kinds(activation="relu") == {nn.ReLU}
    assert kinds(activation="silu") == {nn.SiLU}
    assert digits(name, width=8, activation="silu")(torch.rand(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize(
    ("width", "message"),
    [
        (2, "for 2 times the default write 2.0"),
        (0, "width is 0; give a number of channels"),
        (-1.0, "width is -1.0; give"),
        (float("nan"), "width is nan; give"),
        (float("inf"), "width is inf; give"),
        (True, "width is True; give"),
        (32.0, "for channels give a whole number, 32"),
        (0.01, "width=0.01 leaves 0 of 32 channels"),
    ],
)
def test_width_refused(width, message):
    assert message in refusal(digits, "small-cnn", width=width)


# ------------------------------------------------------------------------------------------------------- normalisation


def test_normalisation_is_the_first_layer():
    model = cifar("small-cnn", width=8, mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3)).eval()
    x = torch.rand(2, 3, 32, 32)
    expected = torch.stack([(x[:, c] - m) / s for c, (m, s) in enumerate([(0.4, 0.1), (0.5, 0.2), (0.6, 0.3)])], 1)
    torch.testing.assert_close(model.normalize(x), expected)
    torch.testing.assert_close(model(x), model.head(model.body(expected)))


def test_normalisation_is_absent_by_default():
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(cifar("small-cnn", width=8).normalize(x), x)


def test_normalisation_travels_with_the_weights():
    saved = cifar("small-cnn", width=8, mean=(0.4, 0.5, 0.6), std=torch.tensor([0.1, 0.2, 0.3])).eval()
    fresh = cifar("small-cnn", width=8).eval()
    fresh.load_state_dict(saved.state_dict())
    torch.testing.assert_close(fresh.normalize.mean, torch.tensor([0.4, 0.5, 0.6]))
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(fresh(x), saved(x))
    assert not [key for key, _ in fresh.named_parameters() if "normalize" in key]


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ((125.3,), (0.2,), "divide by 255"),
        ((float("nan"),), (0.2,), "images are in [0, 1]"),
        ((0.5,), (0.0,), "give values above 0"),
        ((0.5,), (float("nan"),), "give values above 0"),
        ((0.5,), (63.0,), "give values above 0 and at most 1"),
        ((0.5, 0.5), (0.2,), "mean has 2 values and std 1"),
        ((), (), "mean has 0 values"),
        ((0.5, 0.5, 0.5), (0.2, 0.2, 0.2), "mean and std have 3 values, but the images have 1 channels"),
    ],
)
def test_statistics_refused(mean, std, message):
    assert message in refusal(digits, "small-cnn", mean=mean, std=std)


def test_images_of_another_shape_are_refused():
    layer = Normalize([0.5] * 3, [0.2] * 3)
    assert "(batch, 3, height, width), not (2, 1, 8, 8)" in refusal(layer, torch.rand(2, 1, 8, 8))
    assert "not (3, 8, 8)" in refusal(layer, torch.rand(3, 8, 8))


# ------------------------------------------------------------------------------------------------ dtypes, memory, speed


@pytest.mark.parametrize("activation", ["relu", "silu"])
@pytest.mark.parametrize("name", ["small-cnn", "mnist-cnn", "preact-resnet8", "resnet18", "wrn-10-1"])
def test_gradient_with_respect_to_the_input(name, activation):
    model = digits(name, width=4, activation=activation, mean=(0.3,), std=(0.3,)).double().eval()
    x = torch.rand(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    gradient = torch.autograd.grad(model(x)[0, 3], x)[0]
    direction = torch.randn_like(x)
    with torch.no_grad():
        slope = (model(x + 1e-6 * direction) - model(x - 1e-6 * direction))[0, 3] / 2e-6
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("name", ["small-cnn", "mnist-cnn", "preact-resnet8", "resnet18", "wrn-10-1"])
def test_float64(name):
    model = digits(name, width=8).double()
    assert model(torch.rand(2, 1, 8, 8, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("name", ["small-cnn", "mnist-cnn", "preact-resnet8", "resnet18", "wrn-10-1"])
def test_bfloat16_autocast_with_gradients(name):
    model, x = digits(name, width=8), torch.rand(4, 1, 8, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x)
    assert logits.dtype == torch.bfloat16
    logits.float().square().sum().backward()
    assert x.grad.dtype == torch.float32
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["small-cnn", "mnist-cnn", "preact-resnet8", "resnet18", "wrn-10-1"])
def test_channels_last(name):
    model, x = cifar(name, width=8).eval(), torch.rand(2, 3, 32, 32)
    expected = model(x)
    model = model.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
    assert model.normalize(x).is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(model(x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_compiles_in_one_graph(name, unchecked):
    model, x = digits(name, width=8).eval(), torch.rand(2, 1, 8, 8)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))


# ----------------------------------------------------------------------------------------------------- names refused


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet81", "unknown model 'resnet81'; did you mean 'resnet18'"),
        ("", "known: mnist-cnn, preact-resnet18"),
        ("xyz", "wrn-D-K, timm:NAME, path/to/file.py:function, package.module:function"),
        ("wrn-30-10", "there is no wrn-30-10: the depth is 6n + 4"),
        ("wrn-4-10", "there is no wrn-4-10"),
        ("wrn-28-0", "there is no wrn-28-0"),
        ("net.py", "write net.py:FUNCTION"),
    ],
)
def test_names_refused(name, message):
    assert message in refusal(digits, name)


def test_arguments_refused():
    make = partial(build, "small-cnn")
    assert "num_classes is 1" in refusal(make, num_classes=1, image_shape=(1, 8, 8))
    assert "num_classes is True" in refusal(make, num_classes=True, image_shape=(1, 8, 8))
    assert "give (channels, height, width)" in refusal(make, num_classes=2, image_shape=(8, 8))
    assert "give (channels, height, width)" in refusal(make, num_classes=2, image_shape=(0, 8, 8))
    assert "is (1, 7, 8); images need at least 8x8 pixels" in refusal(make, num_classes=2, image_shape=(1, 7, 8))
    assert "(channels, height, width) is (32, 32, 3)" in refusal(make, num_classes=2, image_shape=(32, 32, 3))
    assert "did you mean 'relu'" in refusal(digits, "small-cnn", activation="rellu")


# ------------------------------------------------------------------------------------------------------- user's own

OWN = """
from dataclasses import dataclass
from torch import nn
import helper_beside

@dataclass
class Options:
    width: "int" = 4

def make(num_classes, image_shape):
    c, h, w = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(c * h * w, num_classes))

class Net(nn.Linear):
    def __init__(self, *, num_classes, image_shape):
        super().__init__(image_shape[-1], num_classes)

def late(num_classes, image_shape):
    import helper_late
    return helper_late.net

def number(num_classes, image_shape): return 3
def unmade(num_classes, image_shape): return Net
def fewer(num_classes): return Net
def broken(num_classes, image_shape): raise ZeroDivisionError("mine")
constant = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a model file and the files beside it, as working folder; imports are forgotten afterwards."""
    (tmp_path / "own_net.py").write_text(OWN)
    (tmp_path / "helper_beside.py").write_text("value = 1\n")
    (tmp_path / "helper_late.py").write_text("from torch import nn\nnet = nn.Identity()\n")
    (tmp_path / "wrong_syntax.py").write_text("def make(:\n")
    (tmp_path / "wrong_import.py").write_text("import no_such_package_anywhere\n")
    (tmp_path / "wrong_run.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    modules, path = set(sys.modules), list(sys.path)
    yield tmp_path
    assert sys.path == path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.mark.parametrize("how", ["own_net.py", "./own_net.py", "{folder}/own_net.py", "own_net"])
def test_own_model(own, how):
    source = how.format(folder=own)
    model = digits(f"{source}:make")
    assert isinstance(model, nn.Sequential)
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 10)
    assert digits(f"{source}:Net").out_features == 10
    assert isinstance(digits(f"{source}:late"), nn.Identity)


def test_own_file_elsewhere(own, monkeypatch):
    (own / "empty").mkdir()
    monkeypatch.chdir(own / "empty")
    assert isinstance(digits("../own_net.py:late"), nn.Identity)


def test_own_file_is_read_again(own):
    (own / "net.py").write_text("from torch import nn\ndef make(num_classes, image_shape): return nn.Identity()\n")
    assert isinstance(digits("net.py:make"), nn.Identity)
    (own / "net.py").write_text(
        "from torch import nn\ndef make(num_classes, image_shape): return nn.Flatten()  # new\n"
    )
    assert isinstance(digits("net.py:make"), nn.Flatten)


def test_own_model_normalises_itself(own):
    assert isinstance(digits("own_net.py:make", mean=(0.5,), std=(0.5,)), nn.Sequential)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such.py:make", "there is no file 'no_such.py'"),
        ("no_such_module:make", "there is no module 'no_such_module'"),
        ("torch.no_such_part:make", "there is no module 'torch.no_such_part'"),
        ("own_net.py:mak", "unknown function in own_net.py 'mak'; did you mean 'make'"),
        ("own_net:mak", "did you mean 'make'"),
        ("own_net.py:constant", "unknown function in own_net.py 'constant'"),
        ("own_net.py:number", "returned an object of type int; it must return a torch.nn.Module"),
        ("own_net.py:unmade", "returned the class Net; it must return a torch.nn.Module"),
        ("own_net.py:fewer", "takes (num_classes); it is called as fewer(num_classes=, image_shape=)"),
        ("wrong_syntax.py:make", "'wrong_syntax.py' could not be imported: SyntaxError"),
        ("wrong_syntax:make", "'wrong_syntax' could not be imported: SyntaxError"),
        ("wrong_import.py:make", "No module named 'no_such_package_anywhere'"),
        ("wrong_import:make", "No module named 'no_such_package_anywhere'"),
        ("wrong_run.py:make", "ZeroDivisionError: division by zero"),
        (":make", "write path/to/file.py:FUNCTION"),
        ("own_net.py:", "write path/to/file.py:FUNCTION"),
    ],
)
def test_own_model_refused(own, name, message):
    assert message in refusal(digits, name)


def test_an_error_in_ones_own_function_is_passed_on(own):
    with pytest.raises(ZeroDivisionError, match="mine"):
        digits("own_net.py:broken")


@pytest.mark.parametrize("options", [{"width": 8}, {"activation": "silu"}])
@pytest.mark.parametrize("name", ["timm:resnet10t", "own_net.py:make"])
def test_width_and_activation_are_for_built_in_models(own, name, options):
    assert "width and activation cannot be set" in refusal(digits, name, **options)


# --------------------------------------------------------------------------------------------------------------- timm


def test_timm_convolutional_network():
    pytest.importorskip("timm")
    model = build("timm:resnet10t", num_classes=7, image_shape=(1, 32, 32), mean=(0.1,), std=(0.3,)).eval()
    x = torch.rand(2, 1, 32, 32)
    assert model(x).shape == (2, 7)
    assert torch.equal(model.net.get_classifier()(model.features(x)), model(x))
    assert float(model.normalize.mean) == pytest.approx(0.1)
    assert {key.split(".")[0] for key in model.state_dict()} == {"normalize", "net"}


def test_timm_transformer_is_told_the_image_size():
    pytest.importorskip("timm")
    with torch.device("meta"):
        model = build("timm:vit_tiny_patch16_224", num_classes=7, image_shape=(3, 32, 32))
        assert model(torch.empty(2, 3, 32, 32)).shape == (2, 7)
        assert model.features(torch.empty(2, 3, 32, 32)).shape == (2, 192)


def test_timm_refused():
    pytest.importorskip("timm")
    assert "unknown timm model 'resnet10x'; did you mean 'resnet10t'" in refusal(digits, "timm:resnet10x")
    assert "unknown timm model ''" in refusal(digits, "timm:")
    assert "patches of (16, 16), which do not fit images of 8x8" in refusal(digits, "timm:vit_tiny_patch16_224")


def test_timm_errors_in_one_sentence(monkeypatch):
    timm = pytest.importorskip("timm")

    def create_model(name, **options):
        raise AssertionError("odd image size")

    monkeypatch.setattr(timm, "create_model", create_model)
    message = refusal(digits, "timm:resnet10t")
    assert message == "timm cannot make 'resnet10t' for images of shape (1, 8, 8): odd image size"


def test_timm_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert "pip install 'uiat[timm]'" in refusal(digits, "timm:resnet18")


# -------------------------------------------------------------------------------------------------------- check_model


class Returns(nn.Module):
    """A net with BatchNorm and a frozen part, whose logits go through `change`."""

    def __init__(self, change) -> None:
        super().__init__()
        self.net = digits("small-cnn", width=4)
        self.frozen = nn.BatchNorm2d(1).eval()
        self.net.head.weight.requires_grad_(False)
        self.change = change

    def forward(self, x):
        return self.change(self.net(self.frozen(x)))


class HuggingFaceOutput(dict):
    """What such models return: a dict with the logits as an attribute too."""

    @property
    def logits(self):
        return self["logits"]


def fail(logits):
    raise RuntimeError("inside the model")


def snapshot(model: nn.Module) -> tuple[list[bool], list[bool], dict[str, torch.Tensor]]:
    state = {key: value.clone() for key, value in model.state_dict().items()}
    return [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()], state


def assert_untouched(model: nn.Module, before) -> None:
    modes, flags, state = snapshot(model)
    assert modes == before[0]
    assert flags == before[1]
    assert all(torch.equal(value, before[2][key]) for key, value in state.items())
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda z: HuggingFaceOutput(logits=z),
            "returns a HuggingFaceOutput, not a tensor of logits; wrap the model so",
        ),
        (lambda z: {"logits": z}, "output.logits"),
        (
            lambda z: (z, z),
            "returns a tuple, not a tensor of logits; wrap the model so that its forward returns the one",
        ),
        (lambda z: None, "returns a NoneType"),
        (lambda z: z.argmax(1), "returns torch.int64; it must return logits"),
        (lambda z: z[:, :9], "has 9 classes and the data 10; build it with num_classes=10"),
        (lambda z: z[:, 0], "returns shape (4,) for 4 images; it must be (batch, classes) = (4, 10)"),
        (lambda z: z[:, :, None, None], "returns shape (4, 10, 1, 1) for 4 images"),
        (lambda z: z[:1], "returns shape (1, 10) for 4 images"),
        (lambda z: z / 0, "NaN or infinite"),
        (lambda z: z * float("nan"), "NaN or infinite"),
        (lambda z: z.softmax(1), "returns probabilities; return logits"),
        (lambda z: z.bfloat16().softmax(1), "returns probabilities; return logits"),
    ],
)
def test_check_model_refuses(change, message, training):
    model = Returns(change).train(training)
    model.frozen.eval()
    before = snapshot(model)
    assert message in refusal(check_model, model, torch.rand(4, 1, 8, 8), 10)
    assert_untouched(model, before)


@pytest.mark.parametrize("change", [lambda z: z, lambda z: z.log_softmax(1), lambda z: 0 * z, lambda z: z.bfloat16()])
def test_check_model_accepts(change):
    model = Returns(change).train()
    before = snapshot(model)
    check_model(model, torch.rand(4, 1, 8, 8), 10)
    assert_untouched(model, before)


def test_check_model_passes_on_what_the_model_raises():
    model = Returns(fail).train()
    model.frozen.eval()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="inside the model"):
        check_model(model, torch.rand(4, 1, 8, 8), 10)
    assert_untouched(model, before)


def test_check_model_runs_on_a_few_images_in_evaluation_mode():
    seen = []
    model = Returns(lambda z: seen.append((len(z), model.training, z.requires_grad)) or z).train()
    check_model(model, torch.rand(100, 1, 8, 8), 10)
    assert seen == [(8, False, False)]


def test_check_model_needs_an_image():
    assert "give at least one" in refusal(check_model, digits("small-cnn"), torch.rand(0, 1, 8, 8), 10)


def test_search_path_survives_code_that_rearranges_it(tmp_path):
    before = list(sys.path)
    with custom._searched_last(str(tmp_path)):
        sys.path.remove(str(tmp_path))
    assert sys.path == before
