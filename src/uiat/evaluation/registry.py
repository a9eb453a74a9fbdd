"""Attacks by name, one row each, with the budgets that the field compares under."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from uiat.attacks import APGD, FAB, FGSM, FMN, PGD, External, Noise, Search, SparseAPGD, Square, TargetedPGD, Transfer
from uiat.attacks.gradient import usual_step_size
from uiat.attacks.patch import Patch, PatchAttack
from uiat.attacks.recolour import Recolour
from uiat.attacks.spatial import Spatial
from uiat.checks import checked
from uiat.errors import UserError, nearest
from uiat.evaluation.own_attacks import load_attack
from uiat.inverse.universal_attack import UniversalAttack
from uiat.threat import Threat

Settings = PGD | Search | UniversalAttack | External | None  # None: the images as they are


@dataclass(frozen=True)
class Attack:
    """A name, or a pattern of names, and what is known of the attack it stands for; everything else is made from these.

    Args:
        name: as users write it; each of K (steps), R (restarts) and S (size) is a whole number, as in "pgd-K". With
            "-eot-D" behind it, it takes the mean over D answers of a randomised model at each step and query.
        make: `make(threat, source, *numbers)`, the settings; `source` is the second model of a transfer attack, the
            numbers are those of the pattern. None for an ensemble.
        needs_gradient: it can do nothing to a model without a gradient with respect to its input.
        scale_free: multiplying the logits by a number changes nothing, so that saturated logits do not stop it.
        averages: it takes the mean over several answers of a randomised model without being asked to.
        summary: a few words for `--help`.
        stages: of an ensemble, the attacks that it runs one after another, by name, each with the settings in which it
            differs from the attack of that name alone.

    Example:
        >>> row = Attack("pgd-K", lambda threat, source, steps: PGD(threat=threat, steps=steps))
        >>> row.numbers("pgd-20"), row.numbers("pgd"), row.stem
        ((20,), None, 'pgd')
    """

    name: str
    make: Callable[..., Settings] | None = None
    needs_gradient: bool = True
    scale_free: bool = False
    averages: bool = False
    summary: str = ""
    stages: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @property
    def stem(self) -> str:
        """The name without the letters that stand for numbers."""
        return re.sub(r"-[KRS]\b", "", self.name)

    def numbers(self, name: str) -> tuple[int, ...] | None:
        """Return the numbers in a name that fits this row's; None for one that does not fit."""
        pattern = re.sub(r"(?<=-)[KRS]\b", r"([1-9]\\d*)", self.name)
        match = re.fullmatch(pattern, name)
        return None if match is None else tuple(int(digits) for digits in match.groups())


def _pgd(loss: str) -> Callable[..., PGD]:
    """PGD of K steps of the usual length."""

    def make(threat: Threat, source: object, steps: int, restarts: int = 1) -> PGD:
        size = usual_step_size(threat, steps)
        return PGD(threat=threat, step_size=size, steps=steps, restarts=restarts, loss=loss)  # type: ignore[arg-type]

    return make


def _apgd(loss: str) -> Callable[..., Search]:
    """Auto-PGD: 100 iterations and 9 targets, for L1 five restarts or five targets (Croce & Hein 2020, 2021)."""

    def make(threat: Threat, source: object) -> Search:
        if threat.norm == "L1":
            return SparseAPGD(threat=threat, loss=loss, restarts=1 if loss == "targeted-dlr" else 5, targets=5)  # type: ignore[arg-type]
        return APGD(threat=threat, loss=loss)  # type: ignore[arg-type]

    return make


def _apgd_targeted(threat: Threat, source: object, steps: int) -> Search:
    """The same as apgd-t, with K iterations a target."""
    return _with_settings(_apgd("targeted-dlr")(threat, source), iterations=steps)


def _universal(*, per_class: bool = False, targeted: bool = False) -> Callable[..., UniversalAttack]:
    """A universal perturbation, or one a class, fitted in K passes over the fitting images."""

    def make(threat: Threat, source: object, passes: int) -> UniversalAttack:
        return UniversalAttack(threat=threat, passes=passes, per_class=per_class, targeted=targeted)

    return make


def _transfer(threat: Threat, source: nn.Module | None) -> Transfer:
    if source is None:
        raise UserError('the attack "transfer" needs a second model to make its examples on')
    return Transfer(source=source, threat=threat)


# In the order in which --help names them. The budgets are those of the standard ensemble: 100 iterations, 9 targets,
# 5,000 queries; FAB without targets is in "plus" alone.
ROWS = (
    Attack("clean", lambda threat, source: None, needs_gradient=False),
    Attack("fgsm", lambda threat, source: FGSM(threat=threat)),
    Attack("pgd-K", _pgd("ce"), summary="K steps"),
    Attack("pgd-K-R", _pgd("ce"), summary="R restarts"),
    Attack(
        "pgd-K-targeted",
        lambda threat, source, n: TargetedPGD(threat=threat, iterations=n),
        summary="K steps towards each of 9 classes",
    ),
    Attack("cw-K", _pgd("margin"), scale_free=True, summary="margin loss"),
    Attack("cw-K-R", _pgd("margin"), scale_free=True),
    Attack("noise-R", lambda threat, source, n: Noise(threat=threat, iterations=n), needs_gradient=False),
    Attack("fmn-K", lambda threat, source, n: FMN(threat=threat, iterations=n), scale_free=True),
    Attack("uap-K", _universal(), summary="one perturbation for all images, fitted on others in K passes"),
    Attack("uap-class-K", _universal(per_class=True), summary="one a class"),
    Attack("uap-K-targeted", _universal(targeted=True)),
    Attack("uap-class-K-targeted", _universal(per_class=True, targeted=True)),
    Attack(
        "patch-S",
        lambda threat, source, size: PatchAttack(threat=Patch(size)),
        summary="a square of S pixels, outside the worst case",
    ),
    Attack(
        "spatial", lambda threat, source: Spatial(), needs_gradient=False, summary="rotations and shifts, outside it"
    ),
    Attack(
        "recolour", lambda threat, source: Recolour(), needs_gradient=False, summary="values of a channel, outside it"
    ),
    Attack("transfer", _transfer, needs_gradient=False),
    Attack("apgd-ce", _apgd("ce")),
    Attack("apgd-dlr", _apgd("dlr"), scale_free=True),
    Attack("apgd-t", _apgd("targeted-dlr"), scale_free=True, summary="9 targets"),
    Attack("apgd-K-targeted", _apgd_targeted, scale_free=True, summary="K steps"),
    Attack("fab", lambda threat, source: FAB(threat=threat, targeted=False, restarts=5), scale_free=True),
    Attack("fab-t", lambda threat, source: FAB(threat=threat), scale_free=True),
    Attack("square", lambda threat, source: Square(threat=threat, stretched=False), needs_gradient=False),
    Attack(
        "square-K",
        lambda threat, source, n: Square(threat=threat, iterations=n),
        needs_gradient=False,
        summary="K queries",
    ),
    Attack(
        "autoattack",
        stages={"apgd-ce": {}, "apgd-t": {}, "fab-t": {}, "square": {}},
        summary="the standard ensemble",
    ),
    Attack(
        "autoattack-plus",
        stages={
            "apgd-ce": {"restarts": 5},
            "apgd-dlr": {"restarts": 5},
            "fab": {},
            "square": {},
            "apgd-t": {"targets": 9},
            "fab-t": {},
        },
    ),
    Attack(
        "autoattack-rand",
        stages={"apgd-ce": {"restarts": 1, "draws": 20}, "apgd-dlr": {"restarts": 1, "draws": 20}},
        averages=True,
    ),
    Attack("autoattack-quick", stages={"apgd-ce": {}, "apgd-t": {}}, summary="its first two"),
)
ATTACKS = tuple(row.name for row in ROWS)
ENSEMBLES = {row.name: tuple(row.stages) for row in ROWS if row.stages}


def split_draws(name: str) -> tuple[str, int | None]:
    """Split the name of an attack from the number of answers that it averages; None for a name that says none.

    Example:
        >>> split_draws("pgd-20-eot-5"), split_draws("pgd-20")
        (('pgd-20', 5), ('pgd-20', None))
    """
    match = re.fullmatch(r"(.+)-eot-([1-9]\d*)", name)
    return (name, None) if match is None else (match[1], int(match[2]))


def stage_names(name: str) -> tuple[str, ...]:
    """Return the names of an ensemble's stages; that of an attack alone.

    Example:
        >>> stage_names("autoattack-quick"), stage_names("autoattack-quick-eot-5"), stage_names("fgsm")
        (('apgd-ce', 'apgd-t'), ('apgd-ce-eot-5', 'apgd-t-eot-5'), ('fgsm',))
    """
    base, draws = split_draws(name)
    suffix = "" if draws is None else f"-eot-{draws}"
    return tuple(f"{stage}{suffix}" for stage in ENSEMBLES[base]) if base in ENSEMBLES else (name,)


def find_row(name: str) -> tuple[Attack, tuple[int, ...]] | None:
    """Return the row that a name belongs to and the numbers in it; None for a name that is no attack.

    The name of a stage may say in brackets which ensemble it is of, see `engine.plan.make_plan`.

    Example:
        >>> row, numbers = find_row("cw-20-3")
        >>> row.name, numbers, find_row("apgd-ce (autoattack-rand)")[0].name
        ('cw-K-R', (20, 3), 'apgd-ce')
    """
    name, _ = split_draws(name.partition(" (")[0])
    rows = ((row, row.numbers(name)) for row in ROWS)
    return next(((row, numbers) for row, numbers in rows if numbers is not None), None)


@checked
def attack(name: str, *, threat: Threat, source: nn.Module | None = None) -> Settings:
    """Return the settings of the attack that a name stands for; None for "clean".

    `ATTACKS` lists the names: pgd-K and cw-K (margin loss) take K steps, pgd-K-R has R restarts, noise-R R draws,
    NAME-eot-D takes the mean over D answers of a randomised model, and transfer makes its examples on `source`.

    PGD starts uniformly in the ball, takes K steps of 2.5 epsilon / K (Madry et al. 2018), which is 2/255 for 10 steps
    at 8/255, and returns the last iterate, as is usual for published figures.

    A name that says where to import an attack from, mine.py:noise or torchattacks:PGD(steps=20), runs that code.

    Raises:
        UserError: no such attack, an ensemble, or a transfer without a model to transfer from.

    Example:
        >>> from uiat.threat import Linf
        >>> attack("pgd-50-5", threat=Linf("8/255")).restarts
        5
    """
    row, numbers = find_row(name) or (None, ())
    if row is None and (own := load_attack(name, threat)) is not None:
        return own
    # Only a plan names stages with their ensemble in brackets; as a name to ask for, that is unknown.
    if row is None or row.make is None or " (" in name:
        if re.search(r"-eot(-|$)", name) and split_draws(name)[1] is None:
            raise UserError(f"{name}: behind -eot- stands the number of answers, 1 or more, as in pgd-20-eot-10")
        if name.startswith("certify-"):
            raise UserError(f"{name} is no attack: in Python call uiat.certify_smoothing or uiat.certify_bounds")
        raise nearest("attack", name, ATTACKS)
    settings, (_, draws) = row.make(threat, source, *numbers), split_draws(name)
    if draws is None:
        return settings
    if settings is None:
        raise UserError(f"{name}: the images as they are are no attack, and there is nothing to average")
    if not hasattr(settings, "draws"):
        raise UserError(f"{name}: this attack does not average over the answers of a model")
    # As the version of the reference for randomised models: what restarts would find, averaging finds.
    once = {"restarts": 1} if isinstance(settings, SparseAPGD) else {}
    return _with_settings(settings, draws=draws, **once)


@checked
def stages(name: str, *, threat: Threat, source: nn.Module | None = None) -> list[tuple[str, Settings]]:
    """Return the attacks that a name runs one after another, each on what is still robust; one, except for ensembles.

    "autoattack" is the standard ensemble of Croce & Hein (2020), for L1 of Croce & Hein (2021); "autoattack-plus" and
    "autoattack-rand" (for randomised defences) are the versions of its reference implementation. "autoattack-quick"
    is the first two attacks of the standard one, which find nearly all there is to find, and is no standard.

    Raises:
        UserError: no such attack, or a transfer without a model to transfer from.

    Example:
        >>> from uiat.threat import Linf
        >>> [stage for stage, _ in stages("autoattack", threat=Linf("8/255"))]
        ['apgd-ce', 'apgd-t', 'fab-t', 'square']
    """
    base, draws = split_draws(name)
    if base not in ENSEMBLES:
        return [(name, attack(name, threat=threat, source=source))]
    (row,) = (row for row in ROWS if row.name == base)
    averaging = {} if draws is None else {"draws": draws}
    return [
        (stage, _with_settings(attack(stage, threat=threat), **{**changes, **averaging}))
        for stage, changes in zip(stage_names(name), row.stages.values(), strict=True)
    ]


def _with_settings(settings: Settings, **changes: int) -> Any:
    """Return the same attack with other settings."""
    as_dataclass: Any = settings
    return replace(as_dataclass, **changes)


def help_text() -> str:
    """Return the names with a few words on each, for `--help`.

    Example:
        >>> help_text()
        'clean, fgsm, pgd-K (K steps), pgd-K-R (R restarts), pgd-K-targeted (K steps towards each of 9 classes), ...'
    """
    names = ", ".join(f"{row.name} ({row.summary})" if row.summary else row.name for row in ROWS)
    return f"{names}; any of them with -eot-D (mean of D answers of a model that answers at random)"
