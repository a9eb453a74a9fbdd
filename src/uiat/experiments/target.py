"""Load the model and the images of an evaluation: of a run, of a weights file, or of any model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from uiat import evaluation, models
from uiat.certify.names import split_certifications
from uiat.config.schema import Evaluation, Run
from uiat.data import STATS, ImageSet, Stream, Subsample, as_float, can_open
from uiat.errors import UserError, nearest
from uiat.evaluation.engine.plan import TRANSFER
from uiat.evaluation.own_attacks import is_own_name, split_names
from uiat.experiments.extras import name_classes, plan_extras
from uiat.experiments.fitting import images_to_fit
from uiat.experiments.images import AnyImages, choose_images, match_classes, note_size, stream_large, trained_classes
from uiat.experiments.options import EvaluateOptions
from uiat.experiments.target_checks import check_fit, check_scale_of
from uiat.formatting import threat_text
from uiat.inverse.universal_attack import FitImages
from uiat.models.weights_file import load_weights
from uiat.runs import checkpoint
from uiat.runs.config_file import CUSTOM
from uiat.runs.evaluations import sources_of, sum_of_source
from uiat.runs.own_files import AllowOwnCode
from uiat.runs.reader import CONFIG_FILE, WEIGHTS_FILES
from uiat.runs.settings import read_evaluated
from uiat.system.distributed import local_device
from uiat.threat import Threat, parse
from uiat.training.device import pick_device


@dataclass(frozen=True, kw_only=True)
class EvaluationTarget:
    """A model with the images and attacks to evaluate it on.

    Args:
        model: on its device, in eval mode.
        images: the test images; those that pass by once are a stream.
        sample: which images of the test set they are.
        threat: the threat model.
        attacks: names of the attacks.
        batch_size: images at a time.
        record: facts for evaluation.json, beside the result.
        folder: folder of the results; None keeps them on the screen.
        transfer: a second model, to make examples on.
        notes: lines that say how the weights or the labels were made to fit, and what may not.
        extras: the extra measurements, from `plan_extras`.
        fit: training images, for attacks that are fitted before they are measured.
    """

    model: nn.Module
    images: ImageSet | Stream
    sample: Subsample
    threat: Threat
    attacks: tuple[str, ...]
    batch_size: int
    record: dict[str, Any]
    folder: Path | None
    transfer: nn.Module | None = None
    notes: Sequence[str] = ()
    extras: dict[str, dict[str, Any]] = field(default_factory=dict)
    fit: FitImages | None = None

    @property
    def labelled(self) -> tuple[Tensor | Stream, Tensor | None]:
        """The images and labels as `uiat.evaluate` takes them: floats in [0, 1], or a stream alone."""
        if isinstance(self.images, Stream):
            return self.images, None
        return as_float(self.images.images), self.images.labels

    @property
    def title(self) -> str:
        """The model, the images and the threat model in a line."""
        facts = self.record
        what = f"{facts['run']}, {facts['which']} weights" if "run" in facts else f"{facts['model']}"
        count = self.images.total if isinstance(self.images, Stream) else len(self.images)
        images = f"{'' if count is None else f'{count:,} '}test images of {self.images.name}"
        taken = f"; the images are {self.sample.text}" if self.sample.text else ""
        return f"{what}, on {images}; threat model {threat_text(self.threat)}{taken}"


def load_target(options: EvaluateOptions) -> EvaluationTarget:
    """Load the model and the images; every mistake that can be seen before the work is refused here.

    Raises:
        UserError: options that contradict each other, or a model, weights or data that cannot be used.

    Example:
        >>> load_target(EvaluateOptions())
        Traceback (most recent call last):
        uiat.errors.UserError: name a RUN folder to evaluate, or any model: --model NAME --weights FILE --data NAME ...
    """
    _check_folder(options)
    if options.run is not None:
        return _of_run(options, options.run)
    if options.model is None:
        raise UserError(
            "name a RUN folder to evaluate, or any model: --model NAME --weights FILE --data NAME --threat NORM:RADIUS"
        )
    return _of_weights(options, options.model)


def _check_folder(options: EvaluateOptions) -> None:
    """Refuse the folder of another run, where what is written counts as the result of that run."""
    own = () if options.run is None else (options.run.resolve(),)
    if options.out is not None and (options.out / CONFIG_FILE).is_file() and options.out.resolve() not in own:
        raise UserError(f"--out {options.out} is a run, and would take this for its own result: name another folder")


def _of_run(options: EvaluateOptions, folder: Path) -> EvaluationTarget:
    run, trained_for = read_evaluated(folder)
    is_fitted = run.model.name == CUSTOM
    for name in ("weights", "image_size") if is_fitted else ("model", "width", "weights", "image_size"):
        if getattr(options, name) is not None:
            raise UserError(f"both the run {folder} and --{name.replace('_', '-')}: a run has a model of its own")
    if options.normalize:
        raise UserError(f"both the run {folder} and --normalize: the model of a run normalises its images itself")
    if is_fitted:
        _require_own(options, run, folder)
    threat = parse(options.threat) if options.threat is not None else trained_for
    if threat is None:
        raise UserError("the run was trained without a threat model: give one, such as --threat Linf:8/255")
    names, certify = _names(options, run.evaluation.attacks, threat)
    more = _plan_extras(options, threat, options.data or run.data.name, certify)
    device = local_device(options.device or run.compute.device)
    model = _run_model(folder, options, device=device)
    images, sample = choose_images(options, run)
    check_fit(model, images)
    images, notes = match_classes(images, trained_classes(folder, options.which), folder)
    return EvaluationTarget(
        model=model,
        images=stream_large(images),
        sample=sample,
        threat=threat,
        attacks=names,
        batch_size=options.batch_size or run.evaluation.batch_size,
        record={
            "run": run.name,
            "which": options.which,
            "additional_data": run.data.extra is not None or run.model.is_initialised,
        }
        | _facts(options.model or run.model.name, images, sample),
        folder=options.out or folder,
        transfer=_transfer(options, images, device=device),
        extras=name_classes(more, images.classes, n=options.n, image_size=options.image_size),
        notes=[*notes, *note_size(images, folder, options.which)],
        fit=images_to_fit(options, names, threat, run),
    )


def _require_own(options: EvaluateOptions, run: Run, folder: Path) -> None:
    """Refuse to evaluate a run of `fit` without its model and test images, which the folder cannot name."""
    if options.model is None:
        raise UserError(
            f"the model of {folder} was passed to fit(): name it too, --model file.py:function, or call "
            "uiat.evaluate(...).save(folder) in Python"
        )
    if options.data is None and not can_open(run.data.name):
        raise UserError(f"the data of {folder} was passed to fit(): name test images, --data NAME")


def _of_weights(options: EvaluateOptions, name: str) -> EvaluationTarget:
    missing = [option for option in ("data", "threat") if getattr(options, option) is None]
    if options.weights is None and not models.is_own_code(name):
        missing.insert(0, "weights")
    if missing:
        raise UserError(f"--model {name} needs {' and '.join(f'--{option}' for option in missing)} too")
    if options.resume and options.out is None:
        raise UserError("--resume with --model needs --out DIR, the folder where the state of the evaluation is kept")
    threat = parse(str(options.threat))
    names, certify = _names(options, Evaluation().attacks, threat)
    more = _plan_extras(options, threat, str(options.data), certify)
    device = local_device(options.device or "auto")
    where = pick_device(device)
    images, sample = choose_images(options, Run())
    if not images.num_classes:
        raise UserError(
            f"{images.name}: the number of classes must be known to build {name}: return images that name their "
            "`classes`, as an ImageSet and a dataset do"
        )
    model, notes = build_model(name, images, width=options.width, weights=options.weights, normalize=options.normalize)
    model = model.to(where).eval()
    check_fit(model, images)
    if not options.normalize:
        check_scale_of(model, images)
    weights = None if options.weights is None else str(options.weights)
    return EvaluationTarget(
        model=model,
        images=stream_large(images),
        sample=sample,
        threat=threat,
        attacks=names,
        batch_size=options.batch_size or Evaluation().batch_size,
        record=_facts(name, images, sample, weights) | {"weights": weights, "normalize": options.normalize},
        folder=options.out,
        transfer=_transfer(options, images, device=device),
        extras=name_classes(more, images.classes, n=options.n, image_size=options.image_size),
        notes=notes,
        fit=images_to_fit(options, names, threat),
    )


def build_model(
    name: str, images: AnyImages, *, width: str | None, weights: Path | None, normalize: bool = False
) -> tuple[nn.Module, list[str]]:
    """Build a model by name for a set of images, with weights from a file; return also how they were made to fit.

    Example:
        >>> from uiat.data import load
        >>> model, notes = build_model("torch.nn:Identity", load("digits", "test"), width=None, weights=None)
        >>> notes
        []
    """
    mean, std = STATS.get(images.name, (None, None))
    options = {} if width is None else {"width": _width(width)}
    inside = {} if normalize else {"mean": mean, "std": std}
    model = models.build(name, num_classes=images.num_classes, image_shape=images.image_shape, **inside, **options)  # type: ignore[arg-type]
    notes = [] if weights is None else load_weights(model, weights)
    if not normalize:
        return model, notes
    if mean is None or std is None:
        known = ", ".join(STATS)
        raise UserError(
            f"--normalize knows mean and deviation of {known}, not of {images.name}: normalise in the model"
        )
    return nn.Sequential(models.Normalize(mean, std), model), notes


def _width(word: str) -> int | float:
    try:
        return int(word)
    except ValueError:
        pass
    try:
        return float(word)
    except ValueError:
        raise UserError(
            f"--width must be a number of channels such as 16, or a factor such as 0.5, not {word!r}"
        ) from None


def _facts(model: str, images: AnyImages, sample: Subsample, weights: str | None = None) -> dict[str, Any]:
    """Return what evaluation.json says of the model and the images, with the sums of what lies outside the folder."""
    sources = sources_of(images.name, model, weights)
    sums = {name: found for name in sources if (found := sum_of_source(name)) is not None}
    return {"model": model, "data": images.name, "split": "test", "sample": sample.to_json(), "files": sums}


def _names(options: EvaluateOptions, default: Sequence[str], threat: Threat) -> tuple[tuple[str, ...], list[str]]:
    """Return the names of attacks and of certifications; a mistyped one is refused before anything is loaded."""
    words, certify = split_certifications(default if options.attacks is None else _split("--attacks", options.attacks))
    names = tuple(dict.fromkeys(["clean", *words]))
    for name in names:
        if options.attacks is None and is_own_name(name) and not options.own_code:
            raise UserError(f"the run's attack {name} is code: allow it with --own-code, or give --attacks")
        if name != TRANSFER:
            evaluation.stages(name, threat=threat)
        elif options.transfer is None:
            raise UserError(f"the attack {TRANSFER} needs a second model: --transfer RUN")
    return names, certify + ([] if options.certify is None else _split("--certify", options.certify))


def _split(option: str, text: str) -> list[str]:
    """Split the names of an option; none at all, as an unset variable of a shell gives, is refused."""
    if names := split_names(text):
        return names
    raise UserError(f"{option} names nothing: leave it out, or give it a name")


def _plan_extras(
    options: EvaluateOptions, threat: Threat, data: str, certify: Sequence[str]
) -> dict[str, dict[str, Any]]:
    names = ("epsilons", "sweep_attack", "norms", "norms_attack", "corruptions", "corruption_files")
    return plan_extras(threat=threat, data=data, certify=certify, **{name: getattr(options, name) for name in names})


def _run_model(folder: Path, options: EvaluateOptions, *, device: str) -> nn.Module:
    if options.which not in ("best", "last"):
        raise nearest("weights", options.which, ("best", "last"))
    which, model = cast(checkpoint.Which, options.which), None
    if options.model is not None:  # that of a run of `fit`
        spec = checkpoint.read_weights(folder / WEIGHTS_FILES[which])[1]["model"]
        width = {} if options.width is None else {"width": _width(options.width)}
        shape = tuple(spec["image_shape"])
        model = models.build(options.model, num_classes=spec["num_classes"], image_shape=shape, **width)  # type: ignore[arg-type]
    own_code: AllowOwnCode = "changed" if options.changed_code else options.own_code
    return checkpoint.load(folder, which, model=model, own_code=own_code).to(pick_device(device))


def _transfer(options: EvaluateOptions, images: AnyImages, *, device: str) -> nn.Module | None:
    if options.transfer is None:
        return None
    try:
        other = checkpoint.load(options.transfer, own_code=options.transfer_own_code).to(pick_device(device))
    except UserError as error:  # in the words of the option: to trust one run is not to trust the other
        message = str(error).replace("own_code=True (--own-code) or pass model=", "--transfer-own-code")
        raise UserError(f"--transfer {options.transfer}: {message}") from None
    check_fit(other, images, what=f"the model of --transfer {options.transfer}")
    return other
