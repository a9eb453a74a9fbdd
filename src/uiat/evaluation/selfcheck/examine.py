"""Run the self-checks: look at a model, at some of its test images, and at short attacks that should agree."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import APGD, PGD, Noise, Search, Square, Transfer, input_gradient
from uiat.attacks.random_numbers import keys, uniform
from uiat.checks import Count, check_batch, checked
from uiat.errors import UserError
from uiat.evaluation import registry
from uiat.evaluation.result import EvaluationResult
from uiat.evaluation.selfcheck import attack_checks, model_checks
from uiat.evaluation.selfcheck.case import Case
from uiat.evaluation.selfcheck.finding import Finding
from uiat.evaluation.selfcheck.image_scales import list_scales
from uiat.evaluation.selfcheck.result_checks import (
    attack_names,
    from_result,
    is_averaged,
    is_scale_free,
    plain_attacks,
)
from uiat.models.bpda import has_surrogate
from uiat.models.inspect import Target
from uiat.models.modes import frozen
from uiat.shapes import Bool, Float, Int
from uiat.system.surroundings import neutral_surroundings
from uiat.threat import Linf, Threat

IMAGES = 128  # enough to be sure of 6 points in a hundred, see `finding.wilson_lower`
OF_A_CLASS = 4  # images, in the mean, to see whether the classes are in another order
FEWEST = 8  # correctly classified images, below which no attack says anything
CALLS = 3  # passes of the same images, to see whether they agree
APART = 4  # images that are passed through the model without the others of their batch
SHORT_STEP = 1 / 100  # of the radius, for finite differences
ITERATIONS, FEW, MANY, DRAWS, QUERIES = 20, 10, 100, 10, 100
WHOLE = 0.999  # the largest Linf radius there is: any image may become nearly any other


@checked
@neutral_surroundings()
def examine(
    model: nn.Module,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    *,
    threat: Threat,
    result: EvaluationResult | None = None,
    transfer: nn.Module | None = None,
    seed: int = 0,
    n: Count = IMAGES,
    batch_size: Count = IMAGES,
) -> list[Finding]:
    """Look for what makes a robust accuracy look higher than it is, on some of the images; gravest findings first.

    Costs less than a thousand forward passes an image, on `n` of them. Where outputs are random, not finite or without
    a gradient, that is the finding, and attacks are spared.

    Args:
        model: maps images in [0, 1] to logits; nothing about it has changed afterwards.
        x: the images of the evaluation; those to be looked at are drawn from them.
        y: labels of the images.
        threat: the threat model.
        result: the result of the evaluation, to check that too.
        transfer: a second model, whose adversarial examples the first one should withstand no worse than its own.
        seed: seed of the choice of images and of the random starts.
        n: number of images to look at.
        batch_size: images at a time.

    Raises:
        UserError: images or labels that do not fit, or outputs that are no tensor (n, k).

    Example:
        >>> torch.manual_seed(0)
        <torch._C.Generator object at ...>
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> x = torch.rand(32, 1, 2, 2)
        >>> y = model(x).argmax(1)
        >>> [(finding.check, finding.severity) for finding in examine(model, x, y, threat=Linf(0.1))]
        [('images', 'note')]
    """
    options = {"result": result, "transfer": transfer, "seed": seed, "n": n, "batch_size": batch_size}
    return examine_target(Target(model, x), x, y, threat=threat, **options)  # type: ignore[arg-type]


def examine_target(
    target: Target,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    result: EvaluationResult | None = None,
    transfer: nn.Module | None = None,
    seed: int = 0,
    n: Count = IMAGES,
    batch_size: Count = IMAGES,
    places: Tensor | None = None,
) -> list[Finding]:
    """Run `examine` on a model that may have been asked already what it is.

    `places` are the positions of the images among those of the result, where these are a part of them.

    Example:
        >>> x = torch.rand(8, 1, 2, 2)
        >>> target = Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x)
        >>> examine_target(target, x, target.model(x).argmax(1), threat=Linf(0.1))[-1].check
        'images'
    """
    check_batch(x, y, num_classes=target.classes)
    if n < 1 or batch_size < 1:
        raise UserError(f"n and batch_size must be at least 1, but are {n} and {batch_size}")
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).to(x.device)
    with frozen(target.model):
        case = Case(target, x[order[:n]].to(target.device), y[order[:n]].to(target.device), threat, seed, batch_size)
        chosen = order[:n].cpu() if places is None else places[order[:n].cpu()]
        if result is not None and (places is not None or len(result.broken_by) == len(x)):
            case = _with_plain_result(case, result, chosen)
        findings = list(_run_checks(case, transfer))
        findings += _check_class_order(case, x, y, order[: max(n, OF_A_CLASS * target.classes)])
    few = [attack_checks.check_sample_size(len(x))]
    findings += from_result(result) if result is not None else _present(few)
    findings = [_soften(finding, result, target.model) for finding in findings]
    return sorted(dict.fromkeys(findings), key=lambda finding: finding.severity == "note")


def _with_plain_result(case: Case, result: EvaluationResult, places: Tensor) -> Case:
    """Return the case with what plain attacks left robust, if the evaluation of these images had no other attacks.

    Args:
        case: the images that are looked at.
        result: the evaluation.
        places: positions of these images among those of the evaluation.
    """
    if plain_attacks(result) != attack_names(result):
        return case
    left = torch.tensor([result.broken_by[place] == "" for place in places.tolist()])
    return replace(case, plain=" with ".join(plain_attacks(result)), left=left)


def _check_class_order(case: Case, x: Tensor, y: Tensor, rows: Tensor) -> Iterator[Finding]:
    """Check that the labels number the classes as the model does, by one forward pass of enough images of each."""
    parts = rows.split(case.batch_size)  # of many classes, more images than the device may have room for
    predicted = torch.cat([case.logits(x[part].to(case.target.device)).argmax(dim=1).cpu() for part in parts])
    yield from _present([model_checks.check_class_order(predicted, y[rows].cpu(), classes=case.target.classes)])


def _soften(finding: Finding, result: EvaluationResult | None, model: nn.Module) -> Finding:
    """Make a finding a note where all attacks of the evaluation, or the model's own surrogate, are made for this."""
    if finding.check == "finite differences" and has_surrogate(model):
        reason = "the gradient is that of a surrogate (BPDA), and the number as good as that"
        return Finding(finding.check, reason, "note")
    made_for = {"saturation": is_scale_free, "randomness": is_averaged}
    if result is None or finding.check not in made_for or not made_for[finding.check](result):
        return finding
    return Finding(finding.check, f"{finding.reason}, but these attacks see through that", "note")


def _run_checks(case: Case, transfer: nn.Module | None) -> Iterator[Finding]:
    """Check the outputs first, and attacks only where they can mean something."""
    classes = case.target.classes  # refuses a model that returns no logits
    logits = case.map_batches(lambda x, _: case.logits(x), case.x)
    correct = logits.argmax(dim=1) == case.y.cpu()
    fatal = list(_present(_check_outputs(case, logits)))
    yield from fatal or _present([model_checks.check_probabilities(logits)])
    if fatal:
        return
    count = int(correct.sum())
    chance = model_checks.check_chance(count, len(correct), classes)
    yield from _present([chance, *_check_scales(case, correct)])
    if not case.target.differentiable:
        yield model_checks.check_detached_output()
        return
    if count < FEWEST:
        return
    chosen = correct.to(case.x.device)
    left = None if case.left is None else case.left[correct]
    case = replace(case, x=case.x[chosen], y=case.y[chosen], left=left)
    gradient = case.map_batches(lambda x, y: _gradient(case, losses.margin, x, y), case.x)
    yield from _present([model_checks.check_zero_gradients(gradient), _check_finite_differences(case)])
    yield from _present(_check_attacks(case, gradient, -losses.margin(logits[correct], case.y.cpu()), transfer))


def _present(findings: Iterable[Finding | None]) -> Iterator[Finding]:
    return (finding for finding in findings if finding is not None)


def _check_outputs(case: Case, logits: Float[Tensor, "n k"]) -> Iterator[Finding | None]:
    """Check that outputs are numbers, the same at each call and in any batch."""
    if (not_finite := model_checks.check_finite(logits)) is not None:
        yield not_finite
        return
    again = [case.map_batches(lambda x, _: case.logits(x), case.x) for _ in range(1, CALLS)]
    randomness = model_checks.check_randomness(torch.stack([logits, *again]))
    if randomness is None and len(logits) > APART:
        yield model_checks.check_batch_dependence(logits[:APART], case.logits(case.x[:APART]).cpu())
    yield randomness


def _check_scales(case: Case, correct: Bool[Tensor, "n"]) -> Iterator[Finding | None]:
    """Check that the model does no better on pixel values or normalised images: the best of these alone counts.

    The usual normalisation of a data set counts as the best where others are hardly better: it is the likely one.
    """
    now = {
        scale: case.map_batches(lambda x, y: case.logits(x).argmax(1) == y, scale.apply(case.x))
        for scale in list_scales(case.x)
    }
    best = max(now, key=lambda scale: int(now[scale].sum()) + (model_checks.BY_SCALE * len(correct) if scale.of else 0))
    gained, lost = int((now[best] & ~correct).sum()), int((correct & ~now[best]).sum())
    yield model_checks.check_scale(best.how, gained, lost, len(correct), remedy=best.remedy)


def _gradient(case: Case, loss: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    def inner(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = case.model(x)
        return loss(logits, y), logits

    return input_gradient(inner, x).gradient


def _check_finite_differences(case: Case) -> Finding | None:
    """Check the gradient of the margin by finite differences, at random places of the ball: images lie on lattices."""
    index = torch.arange(len(case.x), device=case.x.device)
    draw = 2 * uniform(keys(case.seed, index), case.x.shape[1:]).to(case.x) - 1
    length = case.threat.length(draw).clamp_min(1e-12).view(-1, *[1] * (case.x.ndim - 1))
    z = case.threat.project(case.x + float(case.threat.epsilon) * draw / length, case.x)
    gradient = case.map_batches(lambda x, y: _gradient(case, losses.margin, x, y), z).to(z)
    step = SHORT_STEP * float(case.threat.epsilon) * case.threat.steepest(gradient.nan_to_num(nan=0.0))
    ends = [case.map_batches(lambda x, y: losses.margin(case.logits(x), y), end) for end in (z + step, z - step)]
    size = case.map_batches(lambda x, _: case.logits(x).abs().amax(dim=1), z)
    promised = (2 * step * gradient).flatten(1).sum(dim=1).cpu()
    resolution = torch.finfo(size.dtype).eps * size
    return model_checks.check_gradient_direction(promised, ends[0] - ends[1], resolution=resolution)


def _check_attacks(
    case: Case, margin: Tensor, gap: Float[Tensor, "n"], transfer: nn.Module | None
) -> Iterator[Finding | None]:
    """Compare short attacks, each on what the others have not broken where that is all that counts."""
    n, threat, radius = len(case.y), case.threat, float(case.threat.epsilon)
    entropy = case.map_batches(lambda x, y: _gradient(case, losses.cross_entropy, x, y), case.x)
    vanished = (entropy.flatten(1) == 0).all(dim=1) & (margin.flatten(1) != 0).any(dim=1)
    by_entropy, by_margin = (case.find_broken(_named_pgd(f"{name}-{FEW}", threat)) for name in ("pgd", "cw"))
    yield attack_checks.check_saturation(vanished, gap, by_margin=by_margin, by_entropy=by_entropy)
    more = case.find_broken(_named_pgd(f"pgd-{MANY}", threat), ~by_entropy)
    yield attack_checks.check_more_steps(int(more.sum()), n, few=FEW, many=MANY)
    double = _with_radius(threat, 2 * radius)
    if double is not None:
        twice = case.find_broken(_named_pgd(f"pgd-{FEW}", double))
        gained, lost = int((twice & ~by_entropy).sum()), int((by_entropy & ~twice).sum())
        yield attack_checks.check_larger_radius(gained, lost, n)
    by_gradient = by_entropy | by_margin | more
    for attack in _auto_pgd(threat):
        by_gradient |= case.find_broken(attack, ~by_gradient)
    if case.left is not None and int(case.left.sum()) >= FEWEST:  # of fewer, there is hardly an accuracy to overstate
        count, left = int((by_gradient & case.left).sum()), int(case.left.sum())
        yield attack_checks.check_plain_attacks(case.plain, count, left)
    for rival in _gradient_free(threat, transfer):
        count = int(case.find_broken(rival, ~by_gradient).sum())
        yield attack_checks.check_gradient_free_wins(rival.name, count, n)
    robust = torch.ones(n, dtype=torch.bool)
    for attack in _auto_pgd(Linf(WHOLE)):
        robust &= ~case.find_broken(attack, robust)
    yield attack_checks.check_unbounded_attack(int(robust.sum()), n)


def _named_pgd(name: str, threat: Threat) -> PGD:
    """Return PGD by its name, with the steps that the field has it take."""
    settings = registry.attack(name, threat=threat)
    assert isinstance(settings, PGD)
    return settings


def _auto_pgd(threat: Threat) -> Iterator[Search | PGD]:
    """Auto-PGD on both losses, or PGD with restarts where it has no version for the norm."""
    try:
        yield APGD(threat=threat, loss="ce", iterations=ITERATIONS, restarts=2)
        yield APGD(threat=threat, loss="dlr", iterations=ITERATIONS)
    except UserError:
        yield replace(_named_pgd(f"cw-{ITERATIONS}-3", threat), keep="best")


def _gradient_free(threat: Threat, transfer: nn.Module | None) -> Iterator[Search]:
    """Attacks that do without this model's gradient."""
    yield Noise(threat=threat, iterations=DRAWS)
    if threat.norm in ("Linf", "L2"):
        yield Square(threat=threat, iterations=QUERIES)
    if transfer is not None:
        yield Transfer(source=transfer, threat=threat, iterations=ITERATIONS, restarts=1)


def _with_radius(threat: Threat, radius: float) -> Threat | None:
    """Return the same threat model with another radius; None where that is no radius any more."""
    try:
        return replace(threat, epsilon=radius)
    except UserError:
        return None
