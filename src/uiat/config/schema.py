"""The settings of a run as one frozen value: data, model, objective, optimisation, validation, evaluation.

The objective, its attack and its inverse adversary are the algorithm objects themselves: there is no second config
for them.
"""

from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from uiat.checks import Amount, AtMostOne, BelowOne, Between, Count, Or, Seed, Whole, checked_fields
from uiat.config.compute import Compute as Compute
from uiat.config.own_objectives import is_objective_code
from uiat.data import is_data_code
from uiat.data.augmentation import Augmentation, Crop
from uiat.data.rand_augment import MOST_MAGNITUDE
from uiat.errors import UserError
from uiat.models import is_own_code as names_code
from uiat.objectives import UIAT, AnyObjective, Objective
from uiat.threat import Threat

FromZero = Annotated[float, Between(0)]
Positive = Annotated[float, Between(0, above=True)]
FromTwo = Annotated[int, Between(2)]


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Data:
    """The data set, and how batches are drawn from it.

    Args:
        name: the data set, one of `uiat.data.NAMES`: digits, cifar10, ..., imagefolder:PATH, npz:FILE, hf:FOLDER; or
            code of your own: file.py:function, package.module:function, an entry point in "uiat.datasets".
        root: folder of the data sets; $UIAT_DATA or ~/.cache/uiat/data by default.
        validation: number of training images held out for validation; by default 1,000 or 5 %, whichever is less.
        subset: train on a stratified part of this many images; all by default.
        augment: "none", "crop" (zero padding, random position), "crop-flip" (and horizontal flips), "resized-crop" (a
            random box, resized to the image) or "resized-crop-flip".
        least_area: smallest fraction of an image's area in a resized crop.
        randaugment: number of random operations on each image (RandAugment), 0 for none.
        randaugment_magnitude: their strength, 0 to 30.
        erasing: fraction of the images of which a random box is erased.
        mixup: alpha of MixUp, 0 for none: pairs of images are blended, and their labels.
        cutmix: alpha of CutMix, 0 for none: a box of an image is put into another, with its part of the label. With
            both, each batch takes one of them.
        batch_size: number of images in a step.
        workers: number of processes that read images, for image folders too large for memory.
        image_size: side in pixels to which the images of a folder are resized and cropped; by default they are not.
        extra: an npz file of more training images, `image` (M, H, W, C) in uint8 and `label` (M,), as generated sets
            are published: github.com/wzekai99/DM-Improves-AT (CIFAR-10, CIFAR-100) and
            github.com/google-deepmind/deepmind-research, folder adversarial_robustness (CIFAR-10, CIFAR-100, SVHN).
        extra_share: fraction of each batch that they are, between 0 and 1. An epoch has as many steps as without them.
        extra_labels: "file" for the file's own labels, "teacher" for the predictions of a naturally trained network.
        extra_teacher: that network, a run folder or a file of weights; by default one is trained first.

    Example:
        >>> Data(name="cifar10", augment="crop-flip").batch_size
        128
    """

    name: str = "digits"
    root: str | None = None
    validation: FromTwo | None = None
    subset: FromTwo | None = None
    augment: Crop = "none"
    least_area: Annotated[float, Between(0, 1, above=True)] = 0.08
    randaugment: Whole = 0
    randaugment_magnitude: Annotated[int, Between(0, MOST_MAGNITUDE)] = 9
    erasing: AtMostOne = 0.0
    mixup: Amount = 0.0
    cutmix: Amount = 0.0
    batch_size: Count = 128
    workers: Annotated[int, Between(0, 1_000)] = 2
    image_size: Annotated[int, Between(8, 100_000)] | None = None
    extra: str | None = None
    extra_share: Annotated[float, Between(0, 1, above=True, below=True)] = 0.7
    extra_labels: Literal["file", "teacher"] = "file"
    extra_teacher: str | None = None

    @property
    def augmentation(self) -> Augmentation:
        """How training images are changed at random."""
        same = {each.name: getattr(self, each.name) for each in fields(Augmentation) if each.name != "crop"}
        return Augmentation(crop=self.augment, **same)


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Model:
    """The architecture, and the weights that it starts from.

    Args:
        name: a built-in architecture (small-cnn, preact-resnet8, resnet18, wrn-28-10, ...), timm:NAME,
            torchvision:NAME, transformers:FOLDER, file.py:function or package.module:function.
        width: channels of the first stage (an int) or a factor on them (a float); the architecture's own by default.
        activation: "relu" or "silu".
        weights: a file of weights (.safetensors, or a state dict of torch.save) or a run folder, whose best ones they
            are; random by default. A last layer of another number of classes stays new.
        pretrained: start from the weights that timm or torchvision publish, which are downloaded, or from those in the
            folder of transformers; images are normalised as they ask for.
        freeze: patterns of parameter names, such as "body.*", whose values training leaves as they are; BatchNorm
            layers and dropout of modules that are frozen whole stay in eval mode.

    Example:
        >>> Model(name="resnet18").activation
        'relu'
    """

    name: str = "small-cnn"
    width: Annotated[int | float, Between(0, 100_000)] | None = None  # `models.build` says what is too narrow
    activation: Literal["relu", "silu"] = "relu"
    weights: str | None = None
    pretrained: bool = False
    freeze: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.pretrained and self.weights is not None:
            raise UserError("model.weights and model.pretrained do not go together: leave one of them out")

    @property
    def is_initialised(self) -> bool:
        """True if training starts from weights, and not from random ones."""
        return self.pretrained or self.weights is not None


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """The optimiser, its schedule, and the average of the weights.

    Args:
        epochs: number of passes over the training set.
        optimizer: "sgd" or "adamw".
        learning_rate: peak learning rate.
        momentum: of SGD, in [0, 1).
        nesterov: Nesterov's form of SGD's momentum.
        weight_decay: coefficient of the L2 penalty (SGD) or of the decoupled decay (AdamW).
        decay_norms: False to leave biases and the weights of normalisation layers (all of one dimension) undecayed.
        layer_decay: learning rate of each block in terms of that of the next one (Clark et al. 2020); the last layer
            has the whole rate. 1 for the same rate everywhere.
        schedule: "constant", "piecewise" (times `decay` at each milestone), "cosine" (to 0), "onecycle" (cosine up to
            `peak_at` and down; Smith 2018), "cyclic" (linear up to `peak_at` and down to 0).
        milestones: epochs of the piecewise schedule, each 1 or later.
        decay: factor at each milestone.
        peak_at: fraction of the run at which onecycle and cyclic peak.
        warmup_epochs: length of a linear warm-up from 0 before the schedule, in epochs.
        radius_warmup_epochs: number of first epochs in which the radius and the step of the training attack are below
            their own: (epoch + 1) / (this + 1) of them, counted from 0. Inverse adversaries and validation have the
            whole radius from the start.
        steps_warmup_epochs: number of first epochs in which the training attack makes fewer steps, each so much longer:
            (epoch + 1) / (this + 1) of its own number, rounded, at least one.
        clip_norm: largest gradient norm, above 0; none by default.
        awp: relative size gamma of the adversarial weight perturbation (Wu et al. 2020); 0 for none.
        awp_from_epoch: first epoch with the weight perturbation.
        average: "none", "ema" or "swa": validate, select and save averaged weights.
        average_decay: decay of the exponential average in each step.
        average_from_epoch: first epoch whose weights are averaged.
        accumulate: number of parts in which a batch is passed, one after the other, to fit large models in memory.
        replays: Free adversarial training (Shafahi et al. 2019): updates on each batch, each of which moves the images
            a step of the attack, whose own `steps` is 0; 0 for none.

    Example:
        >>> Optimisation(schedule="piecewise", milestones=(100, 105), epochs=110).decay
        0.1
    """

    epochs: Count = 30
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: FromZero = 0.1
    momentum: BelowOne = 0.9
    nesterov: bool = True
    weight_decay: FromZero = 5e-4
    decay_norms: bool = True
    layer_decay: Annotated[float, Between(0, 1, above=True)] = 1.0
    schedule: Literal["constant", "piecewise", "cosine", "onecycle", "cyclic"] = "onecycle"
    milestones: tuple[int, ...] = ()
    decay: FromZero = 0.1
    peak_at: Annotated[float, Between(0, 1, above=True, below=True)] = 0.25
    warmup_epochs: Amount = 0.0
    radius_warmup_epochs: Whole = 0
    steps_warmup_epochs: Whole = 0
    clip_norm: Positive | None = None
    awp: Amount = 0.0
    awp_from_epoch: Whole = 0
    average: Literal["none", "ema", "swa"] = "none"
    average_decay: BelowOne = 0.999
    average_from_epoch: Whole = 0
    accumulate: Count = 1
    replays: Whole = 0

    def __post_init__(self) -> None:
        if any(milestone < 1 for milestone in self.milestones):
            raise UserError(f"milestones are epochs, 1 or later, but are {', '.join(map(str, self.milestones))}")


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Validation:
    """The evaluation of a run while it trains, on held-out training images; see `uiat.training.validation`.

    Args:
        every: number of epochs from one validation to the next.
        steps: number of PGD steps under the run's threat model.
        metric: the accuracy that chooses the best epoch: "robust", "clean", their "mean", or "worst-class", the lowest
            robust accuracy of a class.
        patience: stop after this many validations without a better one; never by default.

    Example:
        >>> Validation().metric
        'robust'
    """

    every: Count = 1
    steps: Count = 10
    metric: Literal["robust", "clean", "mean", "worst-class"] = "robust"
    patience: Count | None = None


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Guards:
    """Checks during training, and what follows from them. A loss that is not finite always stops the run.

    Args:
        chance_epochs: warn when clean validation accuracy is still at chance after this many epochs.
        overfitting: on catastrophic overfitting (training robust accuracy jumps while held-out PGD accuracy collapses):
            "warn", "stop", or "rollback" to the best weights and continue.

    Example:
        >>> Guards().overfitting
        'warn'
    """

    chance_epochs: Count = 5
    overfitting: Literal["warn", "stop", "rollback"] = "warn"


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The evaluation of the finished model, on the test set.

    Args:
        attacks: names of attacks: clean, fgsm, pgd-K, pgd-K-R (R restarts), cw-K, autoattack, autoattack-quick, ...
        threat: the threat model; the objective's by default.
        n: number of images, the first of the test set, of an image folder a stratified sample; all by default.
        batch_size: number of images at a time.

    Example:
        >>> Evaluation().attacks
        ('clean', 'pgd-20', 'cw-20')
    """

    attacks: tuple[str, ...] = ("clean", "pgd-20", "cw-20")
    threat: Threat | None = None
    n: Annotated[int, Between(1)] | None = None
    batch_size: Count = 500


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that decides what a training run computes.

    Args:
        name: the name of the run, and of its folder unless --run-dir is given.
        seed: seed of weights, order, augmentation and random starts.
        data: the data set and its batches.
        model: the architecture.
        objective: the training method, with its attacks.
        optimisation: how weights are updated.
        validation: how the run is evaluated while it trains.
        guards: checks during training.
        compute: the device and the arithmetic.
        evaluation: how the finished model is evaluated.

    Example:
        >>> Run(name="mine", optimisation=Optimisation(epochs=2)).objective.name
        'uiat'
    """

    name: str = "run"
    seed: Seed = 0
    data: Data = field(default_factory=Data)
    model: Model = field(default_factory=Model)
    objective: Annotated[AnyObjective, Or(Objective)] = field(default_factory=UIAT)
    optimisation: Optimisation = field(default_factory=Optimisation)
    validation: Validation = field(default_factory=Validation)
    guards: Guards = field(default_factory=Guards)
    compute: Compute = field(default_factory=Compute)
    evaluation: Evaluation = field(default_factory=Evaluation)

    @property
    def threat(self) -> Threat | None:
        """The threat model that the run is evaluated under."""
        return self.evaluation.threat or self.objective.threat


def is_own_model(run: Run) -> bool:
    """True if the run's model is built by the user's own Python code.

    Example:
        >>> is_own_model(Run(model=Model(name="mine.py:net")))
        True
    """
    return names_code(run.model.name)


def is_own_data(run: Run) -> bool:
    """True if the run's data set is opened by the user's own Python code.

    Example:
        >>> is_own_data(Run(data=Data(name="mine.py:faces")))
        True
    """
    return is_data_code(run.data.name)


def is_own_code(run: Run) -> bool:
    """True if the run names Python code of the user's own, for its model, its data set or its objective.

    Example:
        >>> is_own_code(Run())
        False
    """
    return is_own_model(run) or is_own_data(run) or is_objective_code(run.objective.name)
