"""Settings: data, model, threat model and schedule; the first part of the name of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from uiat.attacks import PGD
from uiat.checks import checked_fields
from uiat.config.schema import Compute, Data, Model, Optimisation
from uiat.threat import Linf

AUTO = Compute(precision="auto", compile="auto")  # for runs of minutes: what the machine is fastest with


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything about a run but the method: images, model, attack and schedule.

    Args:
        name: first part of the name of a recipe.
        about: the setting in a few words.
        cost: about how long a run of PGD-AT takes, and on what.
        data: the images.
        model: the architecture.
        epsilon: Linf radius of the attack; inverse adversaries have half of it.
        step_size: step size of the attack.
        steps: steps of the attack, and of the instance-wise inverse adversary.
        optimisation: the schedule.
        others: further schedules, by the ending of the recipes that have them, such as "b"; none by default.
        attacks: names of the attacks of `uiat evaluate`.
        compute: where and in which arithmetic.
        metric: validation accuracy that selects the best epoch of an adversarially trained model.
        one_off: epoch in which one-off UIAT computes its perturbations; the middle of the run by default.
        ramp_epochs: epochs over which the weight of the inverse methods grows.
        inverse_gradient: True to train through the inverse prediction of the inverse methods too.
        label_smoothing: fraction of the label spread over all classes, of the methods that have it.
        source: where the setting is from, and how it differs from there.

    Example:
        >>> SETTINGS["digits"].attack.threat
        Linf(epsilon=0.2, norm='Linf')
    """

    name: str
    about: str
    cost: str
    data: Data
    model: Model
    epsilon: float | str
    step_size: float | str
    steps: int
    optimisation: Optimisation
    others: Mapping[str, Optimisation] = field(default_factory=dict)
    attacks: tuple[str, ...] = ("clean", "pgd-20", "cw-20")
    compute: Compute = field(default_factory=lambda: AUTO)
    metric: Literal["robust", "clean", "mean"] = "robust"
    one_off: int | None = None
    ramp_epochs: int = 0
    inverse_gradient: bool = True
    label_smoothing: float = 0.0
    source: str = ""

    @property
    def attack(self) -> PGD:
        """Multi-step attack of training."""
        return PGD(threat=Linf(self.epsilon), step_size=self.step_size, steps=self.steps)


# The papers' schedules. "-b" is the one of the HAT authors, "-c" the one that a third party attributes to UIAT itself.
PIECEWISE = Optimisation(
    epochs=110, learning_rate=0.1, nesterov=False, schedule="piecewise", milestones=(100, 105), decay=0.1
)
ONECYCLE = Optimisation(epochs=50, learning_rate=0.21, schedule="onecycle", peak_at=0.25)
LONG_ONECYCLE = Optimisation(epochs=100, learning_rate=0.1, schedule="onecycle", peak_at=0.25, weight_decay=5e-4)


def _papers_setting(data: str, architecture: str, short: str, *, cost: str) -> Setting:
    """Return a setting of the papers: Linf 8/255, PGD-10 of step 2/255 (1/255 on SVHN), batch 128, on a GPU."""
    svhn = data == "svhn"
    return Setting(
        name=f"{data}-{short}",
        about=f"{architecture} on {data} as in the papers, on a GPU",
        cost=cost,
        data=Data(name=data, augment="none" if svhn else "crop-flip", batch_size=128),
        model=Model(name=architecture),
        epsilon="8/255",
        step_size="1/255" if svhn else "2/255",
        steps=10,
        optimisation=replace(PIECEWISE, learning_rate=0.01) if svhn else PIECEWISE,
        others={"b": ONECYCLE, "c": LONG_ONECYCLE},
    )


def _medium_setting(data: str) -> Setting:
    """Return a setting in which training converges on one CPU core: half of the images, a small net, PGD-3, 30 epochs.

    The inverse methods are as the paper has them: the whole weight from the first step, no ramp.
    """
    return Setting(
        name=f"{data}-medium",
        about=f"25,000 images of {data}, a ResNet-8 of width 24, to convergence",
        cost="1 h CPU",
        data=Data(name=data, subset=25_000, validation=1_000, augment="crop-flip", batch_size=64),
        model=Model(name="preact-resnet8", width=24),
        epsilon="8/255",
        step_size="4/255",
        steps=3,
        optimisation=Optimisation(epochs=30, learning_rate=0.1, schedule="onecycle"),
        compute=Compute(precision="bf16", compile=True),
        one_off=15,
    )


def _modern_imagenet_setting(short: str, architecture: str) -> Setting:
    """Return the setting of Singh et al. 2023 for a network of timm: long, heavily augmented, from natural weights."""
    return Setting(
        name=f"imagenet-{short}",
        about=f"{architecture} of timm on a folder of ImageNet, heavily augmented, from ImageNet weights, on GPUs",
        cost="days GPUs",
        data=replace(
            IMAGENET,
            batch_size=640,
            randaugment=2,
            randaugment_magnitude=27,
            erasing=0.25,
            mixup=0.8,
            cutmix=1.0,
        ),
        model=Model(name=f"timm:{architecture}", pretrained=True),
        epsilon="4/255",
        step_size="4/255",
        steps=2,
        optimisation=replace(ADAMW, epochs=300, warmup_epochs=20),
        others={"b": replace(ADAMW, epochs=50, warmup_epochs=10)},
        label_smoothing=0.1,
        source=_SINGH,
    )


IMAGENET = Data(name="imagefolder:imagenet", image_size=224, augment="resized-crop-flip", workers=8)
ADAMW = Optimisation(
    optimizer="adamw",
    learning_rate=1e-3,
    weight_decay=0.05,
    decay_norms=False,
    schedule="cosine",
    average="ema",
    average_decay=0.9999,
)
_SINGH = (
    "Singh, Croce, Hein 2023, arXiv:2303.01870, and their program (github.com/nmndeep/revisiting-at): AdamW 1e-3, "
    "decay 0.05 but of norms and biases, cosine after 20 epochs of warm-up (10 in 50 epochs), RandAugment 9 of 10, "
    "MixUp 0.8 or CutMix 1, erasing 0.25, label smoothing 0.1, EMA 0.9999, 2 steps at 4/255. There the steps are "
    "APGD's and 80 images a GPU a batch, a convolutional stem replaces the patches, AdamW's second beta is 0.95, and "
    "colours are jittered"
)
_LIU = (
    "Liu et al. 2023, arXiv:2302.14301, by the file resnet50.yaml of their program ARES (github.com/thu-ml/ares): SGD "
    "0.2 for 512 images, decay 1e-4, a tenth each 30 of 95 epochs after 5 of warm-up, CutMix, label smoothing 0.1, EMA "
    "0.9998, 3 steps of (8/255)/3. They report 67.0 % clean and 34.1 % under AutoAttack of 1,000 "
    "images. There colours are jittered a little, and the attack starts at the image, with a step that grows over 5 "
    "epochs"
)

# One row a setting: its recipes with every method follow from it.
_ROWS = (
    # The inverse methods use a detached target: on held-out images it was ahead of the gradient through both
    # predictions (84.0 against 79.3 robust, seed 0).
    Setting(
        name="digits",
        about="scikit-learn's 8x8 digits: no download",
        cost="1 min CPU",
        data=Data(name="digits", validation=150, batch_size=64),
        model=Model(name="small-cnn", width=16),
        epsilon=0.2,
        step_size=0.05,
        steps=10,
        optimisation=Optimisation(epochs=40, learning_rate=0.1, schedule="onecycle"),
        attacks=("clean", "pgd-50-5", "cw-50"),
        compute=Compute(),
        one_off=10,
        inverse_gradient=False,
    ),
    # Detached here too: it was ahead in clean (98.2 against 96.9) and in robust accuracy (93.9 against 92.1;
    # width 16, 8 epochs, seed 0).
    Setting(
        name="mnist",
        about="MNIST at the field's usual radius",
        cost="20 min CPU",
        data=Data(name="mnist", batch_size=128),
        model=Model(name="mnist-cnn", width=32),
        epsilon=0.3,
        step_size=0.1,
        steps=7,
        optimisation=Optimisation(epochs=12, learning_rate=0.05, weight_decay=0.0, schedule="onecycle"),
        attacks=("clean", "pgd-100-5"),
        one_off=3,
        inverse_gradient=False,
    ),
    # So short a run is far from convergence: updates count for more than the strength of the inner problem,
    # hence its few steps and the small batches. The weight of the inverse methods grows over half of the run:
    # on held-out images that was ahead of the full weight at once (clean 37.6 against 35.9, robust 26.0 against
    # 25.7, seed 0), and of a detached target (35.4, 23.6). The mean of clean and robust accuracy selects: in
    # four epochs nothing overfits, and the robust accuracy of 1,000 images alone picks an early epoch by
    # chance.
    Setting(
        name="cifar10-small",
        about="20,000 images of CIFAR-10, a ResNet-8 of 78,000 weights",
        cost="10 min CPU",
        data=Data(name="cifar10", subset=20_000, augment="crop-flip", batch_size=64),
        model=Model(name="preact-resnet8", width=16),
        epsilon="8/255",
        step_size="4/255",
        steps=3,
        optimisation=Optimisation(epochs=4, learning_rate=0.1, schedule="onecycle"),
        metric="mean",
        one_off=2,
        ramp_epochs=2,
    ),
    _medium_setting("cifar10"),
    _medium_setting("cifar100"),
    _papers_setting("cifar10", "resnet18", "resnet18", cost="11 min GPU"),
    _papers_setting("cifar10", "wrn-28-10", "wrn28", cost="hours GPU"),
    _papers_setting("cifar100", "resnet18", "resnet18", cost="min GPU"),
    _papers_setting("cifar100", "wrn-28-10", "wrn28", cost="hours GPU"),
    _papers_setting("svhn", "resnet18", "resnet18", cost="min GPU"),
    _papers_setting("svhn", "wrn-28-10", "wrn28", cost="hours GPU"),
    Setting(
        name="imagenet-resnet50",
        about="ResNet-50 of torchvision on a folder of ImageNet, with CutMix, from random weights, on GPUs",
        cost="days GPUs",
        data=replace(IMAGENET, batch_size=512, cutmix=1.0),
        model=Model(name="torchvision:resnet50"),
        epsilon="4/255",
        step_size=8 / 255 / 3,
        steps=3,
        optimisation=Optimisation(
            epochs=95,
            learning_rate=0.2,
            weight_decay=1e-4,
            schedule="piecewise",
            milestones=(30, 60, 90),
            warmup_epochs=5,
            average="ema",
            average_decay=0.9998,
        ),
        label_smoothing=0.1,
        source=_LIU,
    ),
    _modern_imagenet_setting("convnext-tiny", "convnext_tiny"),
    _modern_imagenet_setting("vit-small", "vit_small_patch16_224"),
    # A gentle start: under the whole radius, a natural network classifies next to nothing right at first, and its loss
    # stays near that of guessing for some 50 steps (benchmarks/training/finetune.py).
    Setting(
        name="finetune",
        about="a pretrained network (model.name, ResNet-50 by default) on your folder of images (data.name)",
        cost="hours GPU",
        data=replace(IMAGENET, name="imagefolder:images", least_area=0.5, batch_size=64, workers=4),
        model=Model(name="torchvision:resnet50", pretrained=True),
        epsilon="4/255",
        step_size="2/255",
        steps=3,
        optimisation=replace(
            ADAMW, epochs=20, learning_rate=1e-4, warmup_epochs=1, radius_warmup_epochs=3, average_decay=0.999
        ),
        source="settings of this package, tuned on nothing; the radius of ImageNet's threat model in the literature",
    ),
)
SETTINGS: Mapping[str, Setting] = MappingProxyType({row.name: row for row in _ROWS})
