"""The settings of a run as one frozen value: data, model, objective, optimisation, validation, evaluation.

The objective, its attack and its inverse adversary are the algorithm objects themselves: there is no second config
for them.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from uiat.checks import Amount, BelowOne, Between, Count, Or, Seed, Whole, checked_fields
from uiat.config.own_objectives import is_objective_code
from uiat.errors import UserError
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
        name: the data set, one of `uiat.data.NAMES`: digits, cifar10, ..., or imagefolder:PATH.
        root: folder of the data sets; $UIAT_DATA or ~/.cache/uiat/data by default.
        validation: number of training images held out for validation; by default 1,000 or 5 %, whichever is less.
        subset: train on a stratified part of this many images; all by default.
        augment: "none", "crop" (zero padding, random position), "crop-flip" (and horizontal flips).
        batch_size: number of images in a step.
        workers: number of processes that read images, for image folders too large for memory.
        image_size: side in pixels to which the images of a folder are resized and cropped; by default they are not.

    Example:
        >>> Data(name="cifar10", augment="crop-flip").batch_size
        128
    """

    name: str = "digits"
    root: str | None = None
    validation: FromTwo | None = None
    subset: FromTwo | None = None
    augment: Literal["none", "crop", "crop-flip"] = "none"
    batch_size: Count = 128
    workers: Annotated[int, Between(0, 1_000)] = 2
    image_size: Annotated[int, Between(8, 100_000)] | None = None


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Model:
    """The architecture.

    Args:
        name: a built-in architecture (small-cnn, preact-resnet8, resnet18, wrn-28-10, ...), timm:NAME, file.py:function
            or package.module:function.
        width: channels of the first stage (an int) or a factor on them (a float); the architecture's own by default.
        activation: "relu" or "silu".

    Example:
        >>> Model(name="resnet18").activation
        'relu'
    """

    name: str = "small-cnn"
    width: Annotated[int | float, Between(0, 100_000)] | None = None  # `models.build` says what is too narrow
    activation: Literal["relu", "silu"] = "relu"


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
        schedule: "constant", "piecewise" (times `decay` at each milestone), "cosine" (to 0), "onecycle" (cosine up to
            `peak_at` and down; Smith 2018), "cyclic" (linear up to `peak_at` and down to 0).
        milestones: epochs of the piecewise schedule, each 1 or later.
        decay: factor at each milestone.
        peak_at: fraction of the run at which onecycle and cyclic peak.
        warmup_epochs: length of a linear warm-up from 0 before the schedule, in epochs.
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
    schedule: Literal["constant", "piecewise", "cosine", "onecycle", "cyclic"] = "onecycle"
    milestones: tuple[int, ...] = ()
    decay: FromZero = 0.1
    peak_at: Annotated[float, Between(0, 1, above=True, below=True)] = 0.25
    warmup_epochs: Amount = 0.0
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
        metric: the accuracy that chooses the best epoch: "robust", "clean", or their "mean".
        patience: stop after this many validations without a better one; never by default.

    Example:
        >>> Validation().metric
        'robust'
    """

    every: Count = 1
    steps: Count = 10
    metric: Literal["robust", "clean", "mean"] = "robust"
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
class ResolvedCompute:
    """Settings of speed with a value in place of each "auto"; see `Compute`.

    Args:
        precision: of forward and backward passes.
        channels_last: memory format.
        compile: the inner problems' passes; on a GPU the training passes too.
        cuda_graphs: record the step and replay it, on a GPU.
    """

    precision: Literal["fp32", "bf16"]
    channels_last: bool
    compile: bool
    cuda_graphs: bool


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Compute:
    """The device and the arithmetic of a run.

    Args:
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", "mps".
        precision: "fp32"; "bf16" autocast with weights in fp32; "auto": bf16 where convolutions are faster in it.
        channels_last: memory format of images and weights; faster for most convolutions.
        compile: compile the model for the inner problems, in runs of more than a few minutes; needs a C++ compiler.
            Weights then differ in the last digits. "auto": where the run is long enough and a compiled pass is faster
            on this machine; the folder of a run says what "auto" came to.
        cuda_graphs: on a GPU, record a step once an epoch and replay it from then on (see `uiat.speed.cuda_graphs`).
        recompute: activation checkpointing: keep the outputs of blocks alone, and compute the rest again for the
            backward pass. Less memory, a third more time; not together with compile.
        sync_batchnorm: with several processes on GPUs, take BatchNorm statistics of the whole batch.
        plain: switch every setting of speed off, for comparison: fp32, channels first, nothing compiled or recorded,
            the optimiser unfused, kernels of cuDNN guessed instead of tried.
        checkpoint_minutes: number of minutes between checkpoints inside an epoch; each epoch ends with one anyway.
        checkpoint_steps: number of steps between checkpoints inside an epoch; by default only minutes count.

    Example:
        >>> Compute().precision
        'fp32'
    """

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "fp32"
    channels_last: bool = True
    compile: bool | Literal["auto"] = False
    cuda_graphs: bool = True
    recompute: bool = False
    sync_batchnorm: bool = False
    plain: bool = False
    checkpoint_minutes: Amount = 5.0
    checkpoint_steps: Count | None = None

    def __post_init__(self) -> None:
        if self.compile is True and self.recompute:
            raise UserError("compile and recompute do not go together: set one of them to false")

    @property
    def resolved(self) -> ResolvedCompute:
        """The settings that steps are computed with: `plain` overrides all, and an "auto" not yet resolved is off.

        Example:
            >>> Compute(plain=True, precision="bf16").resolved.precision
            'fp32'
        """
        if self.plain:
            return ResolvedCompute(precision="fp32", channels_last=False, compile=False, cuda_graphs=False)
        precision: Literal["fp32", "bf16"] = "fp32" if self.precision == "auto" else self.precision
        more = {"channels_last": self.channels_last, "compile": self.compile is True, "cuda_graphs": self.cuda_graphs}
        return ResolvedCompute(precision=precision, **more)


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
    return ":" in run.model.name and not run.model.name.startswith("timm:")


def is_own_code(run: Run) -> bool:
    """True if the run names Python code of the user's own, for its model or its objective.

    Example:
        >>> is_own_code(Run())
        False
    """
    return is_own_model(run) or is_objective_code(run.objective.name)
