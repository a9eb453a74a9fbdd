"""Extra measurements of an evaluation: radius sweep, unseen threat models, corruptions, certifications."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from uiat.certify import Smoothing, certify_bounds, certify_smoothing, trace_network
from uiat.certify.linf import check_threat
from uiat.certify.names import parse_certifications
from uiat.certify.smoothing_state import require_none
from uiat.data import Stream
from uiat.errors import UserError
from uiat.evaluation.attack_facts import needs_gradient
from uiat.evaluation.corruptions import KINDS, corruption_accuracy
from uiat.evaluation.corruptions.files import corruption_file_accuracy, open_corruption_files
from uiat.evaluation.corruptions.kinds import check_kinds
from uiat.evaluation.engine.fits import unfitted
from uiat.evaluation.engine.plan import make_plan
from uiat.evaluation.radius_sweep import radius_sweep, sweep_plan
from uiat.evaluation.registry import stages
from uiat.evaluation.unseen import evaluate_unseen, usual_threats
from uiat.experiments.evaluation_state import extra_state
from uiat.models.inspect import is_differentiable
from uiat.threat import Threat, parse

USUAL, ALL = "usual", "all"


def plan_extras(
    *,
    threat: Threat,
    data: str,
    epsilons: str | None = None,
    sweep_attack: str = "pgd-20",
    norms: str | None = None,
    norms_attack: str = "autoattack-quick",
    corruptions: str | None = None,
    corruption_files: Path | None = None,
    certify: Sequence[str] = (),
) -> dict[str, dict[str, Any]]:
    """Return the extra measurements that options ask for, by name, with their arguments.

    Args:
        threat: the threat model of the evaluation.
        data: name of the data set.
        epsilons: radii of a sweep, as `uiat.radius_sweep` takes them.
        sweep_attack: the attack of the sweep.
        norms: "usual", or threat models separated by commas.
        norms_attack: the attack under each of those threat models.
        corruptions: "all", or kinds separated by commas.
        corruption_files: folder of published corrupted images.
        certify: names of certifications, as `parse_certifications` takes them.

    Raises:
        UserError: what `radius_sweep`, `evaluate_unseen` and `corruption_accuracy` refuse.

    Example:
        >>> plan_extras(threat=parse("Linf:8/255"), data="cifar10", norms="L2:0.5", corruptions="fog, snow")[
        ...     "corruptions"
        ... ]
        {'kinds': ['fog', 'snow']}
    """
    measured: dict[str, dict[str, Any]] = {}
    for option, name, asked in (("--epsilons", sweep_attack, epsilons), ("--norms", norms_attack, norms)):
        if asked is not None and unfitted(make_plan([name], threat)):
            raise UserError(f"{option}: {name} is fitted before it is measured, which --attacks alone does")
    if epsilons is not None:
        strengths = list(sweep_plan(epsilons, attack=sweep_attack, threat=threat))
        measured["sweep"] = {"threat": threat, "epsilons": strengths, "attack": sweep_attack}
    if norms is not None:
        threats = list(usual_threats(data)) if norms == USUAL else _words(norms)
        for text in threats:
            stages(norms_attack, threat=parse(text))
        which = {"data": data} if norms == USUAL else {"threats": threats}
        measured["unseen"] = {"trained": threat, "attack": norms_attack, **which}
    if corruptions is not None:
        kinds = list(KINDS) if corruptions == ALL else _words(corruptions)
        check_kinds(kinds, [1])
        measured["corruptions"] = {"kinds": kinds}
    if corruption_files is not None:
        open_corruption_files(corruption_files)
        measured["corruption_files"] = {"folder": corruption_files}
    certifications = parse_certifications(certify)
    if None in certifications.values():
        check_threat(threat)
        measured["certified"] = {"threat": threat}
    if smoothings := {name: settings for name, settings in certifications.items() if settings is not None}:
        measured["smoothing"] = smoothings
    return measured


def check_extras(
    plan: Mapping[str, dict[str, Any]],
    model: nn.Module,
    *,
    is_stream: bool,
    state: Path | None = None,
    resume: bool = False,
) -> None:
    """Refuse before any attack runs what could only fail after them.

    Args:
        plan: from `plan_extras`.
        model: the model.
        is_stream: True for images that pass by once.
        state: the state file of the evaluation, beside which certifications by smoothing have theirs.
        resume: resume from those.

    Raises:
        UserError: a layer of which no bounds are known, by its name; images that are streamed; the state of an earlier
            certification.

    Example:
        >>> check_extras({}, nn.Tanh(), is_stream=False)
    """
    if is_stream and {"certified", "smoothing"} & set(plan):
        raise UserError("--certify needs all images in memory, and these are streamed: leave it out")
    if not resume:
        for name in plan.get("smoothing", {}):
            require_none(extra_state(state, name))
    if "certified" not in plan:
        return
    try:
        trace_network(model)
    except UserError as error:
        raise UserError(f"--certify: {error}") from None


def name_classes(
    plan: Mapping[str, dict[str, Any]], classes: Sequence[str], *, n: int | None, image_size: int | None
) -> dict[str, dict[str, Any]]:
    """Return the plan with what is known of the test images by now, which published files have to fit.

    Example:
        >>> name_classes({"corruption_files": {"folder": "a"}}, ["cat"], n=5, image_size=None)["corruption_files"]
        {'folder': 'a', 'classes': ('cat',), 'n': 5, 'image_size': None}
    """
    more = {"classes": tuple(classes), "n": n, "image_size": image_size}
    return {name: how | more if name == "corruption_files" else how for name, how in plan.items()}


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def run_extras(
    plan: Mapping[str, dict[str, Any]],
    model: nn.Module,
    x: Tensor | Stream,
    y: Tensor | None,
    *,
    batch_size: int,
    seed: int,
    progress: Callable[[str, int, int], None],
    first: bool = True,
    broken_by: Sequence[str] = (),
    state: Path | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Measure what `plan_extras` returned; plain values, by the names they have in evaluation.json.

    Args:
        plan: from `plan_extras`.
        model: the model.
        x: images (n, c, h, w) in [0, 1]; beside a stream, only published files are measured.
        y: labels (n,).
        batch_size: images at a time.
        seed: seed of the random numbers.
        progress: called with (attack, images done, images in all), as `uiat.evaluate` takes it.
        first: True for the first of several processes, which does alone what cannot be divided.
        broken_by: for each image the attack that broke it, against which proofs are held.
        state: the state file of the evaluation, beside which certifications by smoothing have theirs.
        resume: resume from those.

    Raises:
        Contradiction: an image is proved robust and broken.

    Example:
        >>> import torch
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), torch.rand(4, 1, 8, 8)
        >>> plan = {"corruptions": {"kinds": ["fog"]}}
        >>> options = {"batch_size": 4, "seed": 0, "progress": lambda *_: None}
        >>> list(run_extras(plan, model, x, torch.tensor([0, 1, 0, 1]), **options)["corruptions"]["by_kind"])
        ['fog']
    """
    options: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "progress": progress}
    able = dict(plan) if isinstance(x, Stream) else drop_gradient_extras(plan, model, x)
    unable = [name for name in plan if name not in able]
    measured, plan = dict[str, Any]({"not_measured": unable} if unable else {}), able
    if first and "corruption_files" in plan:
        measured["corruption_files"] = corruption_file_accuracy(model, **plan["corruption_files"], **options).to_json()
    if isinstance(x, Stream) or y is None:
        return measured
    if "unseen" in plan:  # splits the images over the processes
        measured["unseen"] = evaluate_unseen(model, x, y, **plan["unseen"], **options).to_json()
    if first and "sweep" in plan:
        measured["sweep"] = radius_sweep(model, x, y, **plan["sweep"], **options).to_json()
    if first and "certified" in plan:
        proofs = certify_bounds(model, x, y, **plan["certified"], progress=progress)
        proofs.check_attacks(broken_by)
        measured["certified"] = proofs.to_json()
    if "smoothing" in plan:  # splits the images over the processes
        files = {name: extra_state(state, name) for name in plan["smoothing"]}
        measured["smoothing"] = {
            name: _smooth(settings, model, x, y, **options, state=files[name], resume=resume)
            for name, settings in plan["smoothing"].items()
        }
    if first and "corruptions" in plan:
        measured["corruptions"] = corruption_accuracy(model, x, y, **plan["corruptions"], **options).to_json()
    return measured


def _smooth(settings: Smoothing, model: nn.Module, x: Tensor, y: Tensor, **options: Any) -> dict[str, Any]:
    numbers = {"sigma": settings.sigma, "n0": settings.n0, "n": settings.n, "alpha": settings.alpha}
    return certify_smoothing(model, x, y, **numbers, **options).to_json()  # type: ignore[arg-type]


def drop_gradient_extras(plan: Mapping[str, dict[str, Any]], model: nn.Module, x: Tensor) -> dict[str, dict[str, Any]]:
    """Return the plan without the measurements that need a gradient, where the model has none.

    Example:
        >>> import torch
        >>> plan = {"sweep": {"attack": "pgd-20"}, "corruptions": {"kinds": ["fog"]}}
        >>> list(drop_gradient_extras(plan, nn.Flatten(), torch.rand(1, 4)))
        ['sweep', 'corruptions']
    """
    if is_differentiable(model, x):
        return dict(plan)
    return {name: how for name, how in plan.items() if not needs_gradient(how.get("attack", "clean"))}
