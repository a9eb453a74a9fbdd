"""Models of timm and torchvision: built for the images, refused in a sentence, with published weights if asked."""

import sys
from urllib.error import URLError

import pytest
import torch
from torchvision.models import SqueezeNet1_1_Weights, get_model
from torchvision.models._api import WeightsEnum

import uiat
from support import tiny
from support.models import digits, refusal
from uiat import Model
from uiat.models import build
from uiat.system.manifest import read_manifest
from uiat.training.open_run import reopen_run, start_run

SQUEEZENET = "torchvision:squeezenet1_1"


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


def test_torchvision_is_built_for_the_classes():
    model = build("torchvision:resnet18", num_classes=7, image_shape=(3, 32, 32), mean=(0.1, 0.2, 0.3), std=(0.3,) * 3)
    assert model.eval()(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert model.normalize.mean.tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert {key.split(".")[0] for key in model.state_dict()} == {"normalize", "net"}


def test_torchvision_transformer_is_told_the_image_size():
    with torch.device("meta"):
        model = build("torchvision:vit_b_32", num_classes=7, image_shape=(3, 64, 64))
        assert model(torch.empty(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("torchvision:resnet10", "unknown torchvision model 'resnet10'; did you mean 'resnet101'"),
        ("torchvision:deeplabv3_resnet50", "unknown torchvision model"),
        ("torchvision:resnet18", "takes images of 3 channels, not 1: timm:NAME takes any number"),
    ],
)
def test_torchvision_refused(name, says):
    assert says in refusal(digits, name)


def test_torchvision_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert "needs torchvision, which is not installed: pip install" in refusal(digits, "torchvision:resnet18")


@pytest.fixture
def published(monkeypatch):
    """The weights that torchvision publishes, as if they had been fetched: those of a network of 1,000 classes."""
    torch.manual_seed(5)
    weights = get_model("squeezenet1_1", weights=None, num_classes=1000).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, **options: dict(weights))
    return weights


def test_pretrained_torchvision_keeps_all_but_the_last_layer(published, caplog):
    model = build(SQUEEZENET, num_classes=7, image_shape=(3, 32, 32), mean=(0.1,) * 3, std=(0.3,) * 3, pretrained=True)
    own = {name.removeprefix("net."): value for name, value in model.state_dict().items()}
    differ = {name for name, value in published.items() if not torch.equal(own[name], value)}
    assert differ == {"classifier.1.weight", "classifier.1.bias"}
    assert model.normalize.mean.tolist() == pytest.approx(SqueezeNet1_1_Weights.DEFAULT.transforms().mean)
    assert "the weights are of 1000 classes, the model has 7" in caplog.text


def test_pretrained_timm_keeps_all_but_the_last_layer(monkeypatch, caplog):
    timm = pytest.importorskip("timm")
    torch.manual_seed(5)
    weights = timm.create_model("resnet10t", num_classes=1000).state_dict()
    for loader in ("load_state_dict_from_hf", "load_state_dict_from_url"):
        monkeypatch.setattr(f"timm.models._builder.{loader}", lambda *args, **options: dict(weights))
    model = build(
        "timm:resnet10t", num_classes=7, image_shape=(3, 32, 32), mean=(0.1,) * 3, std=(0.3,) * 3, pretrained=True
    )
    own = {name.removeprefix("net."): value for name, value in model.state_dict().items()}
    same = {name for name, value in weights.items() if own[name].shape == value.shape and torch.equal(own[name], value)}
    assert set(weights) - same == {"fc.weight", "fc.bias"}
    assert own["fc.weight"].std(correction=0).item() == pytest.approx(0.01)  # 0.026 as timm draws it
    assert model.normalize.mean.tolist() == pytest.approx(list(model.net.pretrained_cfg["mean"]))
    assert "the weights are of 1000 classes, the model has 7" in caplog.text


def test_without_a_network_the_error_says_what_to_do(monkeypatch):
    def refuse(*args, **options):
        raise URLError("no network")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", refuse)
    for loader in ("load_state_dict_from_hf", "load_state_dict_from_url"):
        monkeypatch.setattr(f"timm.models._builder.{loader}", refuse)
    for name in (SQUEEZENET, "timm:resnet10t"):
        said = refusal(build, name, num_classes=2, image_shape=(3, 32, 32), pretrained=True)
        assert f"the pretrained weights of {name} cannot be fetched (URLError: <urlopen error no network>)" in said
        assert "set model.weights=FILE" in said


def test_pretrained_is_for_libraries_alone():
    assert "no weights are published of 'small-cnn'" in refusal(digits, "small-cnn", pretrained=True)
    assert "no weights are published of 'net.py:make'" in refusal(digits, "net.py:make", pretrained=True)
    assert "do not go together" in refusal(Model, name=SQUEEZENET, pretrained=True, weights="w.pth")


def test_a_pretrained_run_is_recorded_and_reopened_without_fetching(published, tmp_path, monkeypatch):
    images = torch.rand(40, 3, 32, 32)
    monkeypatch.setattr("uiat.training.open_run.load_datasets", lambda data, seed, **_: tiny_sets(images))
    run = tiny.run(model=Model(name=SQUEEZENET, pretrained=True), data={"name": "cifar10", "batch_size": 8})
    with start_run(run, run_dir=tmp_path / "run") as training:
        first = {name: value.clone() for name, value in training.model.state_dict().items()}
    start = read_manifest(tmp_path / "run")["start"]
    assert start["weights"] == f"pretrained {SQUEEZENET}"
    assert len(start["sha256"]) == 64
    monkeypatch.setattr(WeightsEnum, "get_state_dict", None)
    with reopen_run(tmp_path / "run") as training:
        assert all(torch.equal(value, first[name]) for name, value in training.model.state_dict().items())


def tiny_sets(images):
    labels = torch.arange(len(images)) % 4
    return uiat.data.from_tensors(images, labels), uiat.data.from_tensors(images[:8], labels[:8])


@pytest.fixture
def vit_folder(tmp_path):
    """A tiny transformers ViT of 5 classes, as `save_pretrained` writes it."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    config = transformers.ViTConfig(
        image_size=8, patch_size=4, num_channels=1, num_labels=5, attention_probs_dropout_prob=0.5, **sizes
    )
    net = transformers.ViTForImageClassification(config)
    net.save_pretrained(tmp_path / "vit")
    (tmp_path / "vit" / "preprocessor_config.json").write_text('{"image_mean": [0.25], "image_std": [0.5]}')
    return tmp_path / "vit", net.eval()


def test_transformers_classifiers_start_from_their_folder(vit_folder, caplog):
    folder, net = vit_folder
    x = torch.rand(2, 1, 8, 8)
    same = build(f"transformers:{folder}", num_classes=5, image_shape=(1, 8, 8), pretrained=True).eval()
    torch.testing.assert_close(same(x), net(pixel_values=(x - 0.25) / 0.5).logits)
    new = build(f"transformers:{folder}", num_classes=3, image_shape=(1, 8, 8), mean=(0.1,), std=(1.0,))
    assert new(x).shape == (2, 3)
    assert float(new.normalize.mean) == pytest.approx(0.1)
    assert not caplog.records
    other = build(f"transformers:{folder}", num_classes=3, image_shape=(1, 8, 8), pretrained=True)
    assert "the last layer is new: the weights are of 5 classes, the model has 3" in caplog.text
    assert other.net.get_parameter("classifier.weight").std(correction=0).item() == pytest.approx(0.01)
    assert torch.equal(other.net.vit.state_dict()["layernorm.weight"], net.vit.state_dict()["layernorm.weight"])


def test_transformers_refused(vit_folder, monkeypatch):
    folder, _ = vit_folder
    name = f"transformers:{folder}"
    message = refusal(build, name, num_classes=5, image_shape=(1, 16, 16), pretrained=True)
    assert "do not fit the model: vit.embeddings.position_embeddings is (1, 5, 8) and not (1, 17, 8)" in message
    (folder / "config.json").write_text('{"model_type": "vit", "auto_map": {"AutoConfig": "evil.Config"}, "hidden')
    assert "holds no image classifier" in refusal(build, name, num_classes=5, image_shape=(1, 8, 8))
    (folder / "evil.py").write_text("raise SystemExit('run')")
    (folder / "config.json").write_text('{"model_type": "none", "auto_map": {"AutoConfig": "evil.Config"}}')
    assert "holds no image classifier" in refusal(build, name, num_classes=5, image_shape=(1, 8, 8))
    assert "nothing is downloaded" in refusal(build, "transformers:google/vit", num_classes=5, image_shape=(1, 8, 8))
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'uiat[transformers]'" in refusal(build, name, num_classes=5, image_shape=(1, 8, 8))


def test_a_transformers_classifier_trains_from_the_command_line_settings(vit_folder):
    folder, _ = vit_folder
    run = tiny.run(
        model=Model(name=f"transformers:{folder}", pretrained=True), epochs=1, data={"randaugment": 1, "cutmix": 1.0}
    )
    result = uiat.train(run, progress=False)
    assert len(result.history) == 1
