"""The self-checks: a model, some of its test images, and a few short attacks that ought to agree with one another."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uiat import losses
from uiat.attacks import APGD, PGD, Noise, Search, Square, Transfer, input_gradient
from uiat.attacks.random_numbers import keys, uniform
from uiat.checks import check_batch
from uiat.data import STATS
from uiat.errors import UserError
from uiat.evaluation import registry
from uiat.evaluation.engine.search_runner import search
from uiat.evaluation.result import EvaluationResult
from uiat.evaluation.selfcheck import attack_checks, model_checks
from uiat.evaluation.selfcheck.finding import Finding
from uiat.evaluation.selfcheck.result_checks import from_result, is_averaged, is_scale_free
from uiat.models.inspect import classes_of, device_of, differentiable
from uiat.models.modes import frozen
from uiat.threat import Linf, Threat, require

IMAGES = 128  # enough to see 6 points of a hundred with certainty, see `finding.lower`
FEWEST = 8  # correctly classified images, below which no attack says anything
CALLS = 3
APART = 4  # images that are asked about without their neighbours
SHORT_WAY = 1 / 100  # of the radius, for finite differences
ITERATIONS, FEW, MANY, DRAWS, QUERIES = 20, 10, 100, 10, 100
WHOLE = 0.999  # the largest Linf radius there is: any image may become nearly any other
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Case:
    """What the checks look at: a model that is in evaluation mode and frozen, and images it has right."""

    model: nn.Module
    x: Tensor
    y: Tensor
    classes: int
    threat: Threat
    seed: int
    batch_size: int

    def each(self, of: Callable[[Tensor, Tensor], Tensor], x: Tensor) -> Tensor:
        """`of(images, labels)` batch by batch, on the CPU."""
        parts = zip(x.split(self.batch_size), self.y.split(self.batch_size), strict=True)
        return torch.cat([of(part, labels).cpu() for part, labels in parts])

    def broken(self, attack: Search | PGD, among: Tensor | None = None) -> Tensor:
        """Which images an attack breaks, of all or some; none where it has no version for the threat model."""
        result = torch.zeros(len(self.y), dtype=torch.bool)
        left = torch.arange(len(self.y)) if among is None else among.nonzero().flatten()
        if len(left) == 0:
            return result
        x, y = self.x[left.to(self.x.device)], self.y[left.to(self.y.device)]
        if isinstance(attack, PGD):
            source = torch.Generator(x.device).manual_seed(self.seed)

            def fooled(a: Tensor, b: Tensor) -> Tensor:
                logits = self.logits(attack.perturb(self.model, a, b, generator=source))
                # NaN would win every argmax, and so count as an answer.
                return (logits.argmax(dim=1) != b) & ~logits.isnan().any(dim=1)

            result[left] = replace(self, y=y).each(fooled, x)
            return result
        options = {"num_classes": self.classes, "device": x.device, "seed": self.seed, "batch_size": self.batch_size}
        found = search(attack, self.model, x, y, left, **options)  # type: ignore[arg-type]
        result[left] = found[0].cpu()
        return result

    def logits(self, x: Tensor) -> Tensor:
        """The outputs, without a gradient."""
        with torch.no_grad():
            logits: Tensor = self.model(x)
        return logits


def examine(
    model: nn.Module,
    x: Float[Tensor, "n ..."],
    y: Int[Tensor, "n"],
    *,
    threat: Threat,
    result: EvaluationResult | None = None,
    transfer: nn.Module | None = None,
    seed: int = 0,
    n: int = IMAGES,
    batch_size: int = IMAGES,
) -> list[Finding]:
    """Look for what makes a robust accuracy look higher than it is, on some of the images; gravest findings first.

    Costs less than a thousand forward passes an image, on `n` of them. Where outputs are random, not finite or without
    a gradient, that is the finding, and attacks are spared.

    Args:
        model: maps images in [0, 1] to logits; as it was afterwards.
        x: the images of the evaluation; those to be looked at are drawn from them.
        y: their labels.
        threat: the threat model.
        result: of the evaluation; what it knows of itself is used too.
        transfer: a second model, whose adversarial examples the first one should withstand no worse than its own.
        seed: which images, and of the random starts.
        n: images to look at.
        batch_size: of them at a time.

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
    require(threat)
    check_batch(x, y)
    if n < 1 or batch_size < 1:
        raise UserError(f"n and batch_size must be at least 1, but are {n} and {batch_size}")
    device = device_of(model)
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:n].to(x.device)
    images, labels = x[chosen].to(device), y[chosen].to(device)
    with frozen(model):
        case = Case(model, images, labels, classes_of(model, images), threat, seed, batch_size)
        findings = list(_found(case, transfer))
    findings += [f for f in [attack_checks.check_sample_size(len(x))] if f] if result is None else from_result(result)
    findings = [_softened(finding, result) for finding in findings]
    return sorted(dict.fromkeys(findings), key=lambda finding: finding.severity == "note")


def _softened(finding: Finding, result: EvaluationResult | None) -> Finding:
    """A note, where all attacks of the evaluation are made for just this: each of its numbers is claimed."""
    made_for = {"saturation": is_scale_free, "randomness": is_averaged}
    if result is None or finding.check not in made_for or not made_for[finding.check](result):
        return finding
    return replace(finding, severity="note", reason=f"{finding.reason}, but these attacks see through that")


def _found(case: Case, transfer: nn.Module | None) -> Iterator[Finding]:
    """Outputs first; attacks only where they can mean something."""
    logits = case.each(lambda a, _: case.logits(a), case.x)
    right = logits.argmax(dim=1) == case.y.cpu()
    fatal = list(_present(_of_outputs(case, logits)))
    yield from fatal or _present([model_checks.check_probabilities(logits)])
    if fatal:
        return
    yield from _present(
        [model_checks.check_chance(int(right.sum()), len(right), case.classes), *_of_scale(case, right)]
    )
    if not differentiable(case.model, case.x):
        yield model_checks.check_detached_output()
        return
    if right.sum() < FEWEST:
        return
    chosen = right.to(case.x.device)
    case = replace(case, x=case.x[chosen], y=case.y[chosen])
    margin = case.each(lambda a, b: _gradient(case, losses.margin, a, b), case.x)
    yield from _present([model_checks.check_zero_gradients(margin), _difference(case)])
    yield from _present(_of_attacks(case, margin, -losses.margin(logits[right], case.y.cpu()), transfer))


def _present(findings: Iterable[Finding | None]) -> Iterator[Finding]:
    return (finding for finding in findings if finding is not None)


def _of_outputs(case: Case, logits: Float[Tensor, "n k"]) -> Iterator[Finding | None]:
    """Whether the outputs are numbers, and the same whenever and beside whomever they are asked for."""
    if (nonsense := model_checks.check_finite(logits)) is not None:
        yield nonsense
        return
    again = [case.each(lambda a, _: case.logits(a), case.x) for _ in range(1, CALLS)]
    unsteady = model_checks.check_randomness(torch.stack([logits, *again]))
    if unsteady is None and len(logits) > APART:
        yield model_checks.check_batch_dependence(logits[:APART], case.logits(case.x[:APART]).cpu())
    yield unsteady


def _of_scale(case: Case, right: Bool[Tensor, "n"]) -> Iterator[Finding | None]:
    """The same images as pixel values and normalised in the usual ways: only the gravest symptom counts."""
    ways = {"multiplied by 255": 255 * case.x}
    if case.x.ndim == 4:
        channels = case.x.transpose(0, 1).flatten(1)
        usual = {(tuple(channels.mean(1).tolist()), tuple(channels.std(1).tolist())), ((0.5,), (0.5,)), IMAGENET}
        for mean, std in sorted(usual | set(STATS.values())):
            if len(mean) in (1, case.x.shape[1]):
                shift, spread = (torch.tensor(v, device=case.x.device).view(1, -1, 1, 1) for v in (mean, std))
                ways[f"normalised by mean {mean[0]:.2f} and standard deviation {std[0]:.2f}"] = (
                    case.x - shift
                ) / spread
    now = {how: case.each(lambda a, b: case.logits(a).argmax(1) == b, x) for how, x in ways.items()}
    best = max(now, key=lambda how: int(now[how].sum()))
    yield model_checks.check_scale(best, int((now[best] & ~right).sum()), int((right & ~now[best]).sum()), len(right))


def _gradient(case: Case, of: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    def inner(x: Tensor) -> tuple[Tensor, Tensor]:
        logits = case.model(x)
        return of(logits, y), logits

    return input_gradient(inner, x).gradient


def _difference(case: Case) -> Finding | None:
    """The gradient of the margin against finite differences, at random places of the ball: images lie on lattices."""
    where = torch.arange(len(case.x), device=case.x.device)
    draw = 2 * uniform(keys(case.seed, where), case.x.shape[1:]).to(case.x) - 1
    length = case.threat.length(draw).clamp_min(1e-12).view(-1, *[1] * (case.x.ndim - 1))
    z = case.threat.project(case.x + float(case.threat.epsilon) * draw / length, case.x)
    gradient = case.each(lambda a, b: _gradient(case, losses.margin, a, b), z).to(z)
    step = SHORT_WAY * float(case.threat.epsilon) * case.threat.steepest(gradient.nan_to_num(nan=0.0))
    ends = [case.each(lambda a, b: losses.margin(case.logits(a), b), end) for end in (z + step, z - step)]
    size = case.each(lambda a, _: case.logits(a).abs().amax(dim=1), z)
    promised = (2 * step * gradient).flatten(1).sum(dim=1).cpu()
    return model_checks.check_gradient_direction(
        promised, ends[0] - ends[1], resolution=torch.finfo(size.dtype).eps * size
    )


def _of_attacks(
    case: Case, margin: Tensor, gap: Float[Tensor, "n"], transfer: nn.Module | None
) -> Iterator[Finding | None]:
    """Short attacks against one another, on what others left standing where that is all that counts."""
    n, threat, radius = len(case.y), case.threat, float(case.threat.epsilon)
    entropy = case.each(lambda a, b: _gradient(case, losses.cross_entropy, a, b), case.x)
    vanished = (entropy.flatten(1) == 0).all(dim=1) & (margin.flatten(1) != 0).any(dim=1)
    by = {loss: case.broken(_named(f"{name}-{FEW}", threat)) for loss, name in (("ce", "pgd"), ("margin", "cw"))}
    yield attack_checks.check_saturation(vanished, gap, by_margin=by["margin"], by_entropy=by["ce"])
    more = case.broken(_named(f"pgd-{MANY}", threat), ~by["ce"])
    yield attack_checks.check_more_steps(int(more.sum()), n, few=FEW, many=MANY)
    double = _larger(threat, 2 * radius)
    if double is not None:
        twice = case.broken(_named(f"pgd-{FEW}", double))
        yield attack_checks.check_larger_radius(int((twice & ~by["ce"]).sum()), int((by["ce"] & ~twice).sum()), n)
    white = by["ce"] | by["margin"] | more
    for attack in _climbs(threat):
        white |= case.broken(attack, ~white)
    for rival in _rivals(threat, transfer):
        yield attack_checks.check_gradient_free_wins(rival.name, int(case.broken(rival, ~white).sum()), n)
    standing = torch.ones(n, dtype=torch.bool)
    for attack in _climbs(Linf(WHOLE)):
        standing &= ~case.broken(attack, standing)
    yield attack_checks.check_unbounded_attack(int(standing.sum()), n)


def _named(name: str, threat: Threat) -> PGD:
    """PGD by its name, with the steps that the field has it take."""
    found = registry.attack(name, threat=threat)
    assert isinstance(found, PGD)
    return found


def _climbs(threat: Threat) -> Iterator[Search | PGD]:
    """Auto-PGD on both losses, or PGD with restarts where it has no version for the norm."""
    try:
        yield APGD(threat=threat, loss="ce", iterations=ITERATIONS, restarts=2)
        yield APGD(threat=threat, loss="dlr", iterations=ITERATIONS)
    except UserError:
        yield replace(_named(f"cw-{ITERATIONS}-3", threat), keep="best")


def _rivals(threat: Threat, transfer: nn.Module | None) -> Iterator[Search]:
    """Attacks without this model's gradient."""
    yield Noise(threat=threat, iterations=DRAWS)
    if threat.norm in ("Linf", "L2"):
        yield Square(threat=threat, iterations=QUERIES)
    if transfer is not None:
        yield Transfer(source=transfer, threat=threat, iterations=ITERATIONS, restarts=1)


def _larger(threat: Threat, radius: float) -> Threat | None:
    """The same ball with another radius; None where that is no radius any more."""
    try:
        return replace(threat, epsilon=radius)
    except UserError:
        return None
