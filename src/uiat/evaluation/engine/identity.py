"""What tells an evaluation from others, so that its state is resumed by the very same one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from uiat.data.stream import Stream
from uiat.evaluation.engine.calls import CallRule
from uiat.evaluation.engine.fits import unfitted
from uiat.evaluation.engine.plan import Plan, budgets, drop_gradient_attacks, make_plan
from uiat.evaluation.engine.state_file import checksum, fingerprint
from uiat.formatting import threat_record
from uiat.models.inspect import Target
from uiat.shapes import Float, Int
from uiat.system.surroundings import check_ordinary, neutral_surroundings, ordinary
from uiat.threat import Threat


@neutral_surroundings()
def identify(
    model: nn.Module,
    x: Float[Tensor, "n c h w"] | Stream,
    y: Int[Tensor, "n"] | None = None,
    *,
    threat: Threat,
    attacks: Sequence[str],
    seed: int = 0,
    keep_examples: bool = False,
    transfer: nn.Module | None = None,
    calls: int = 1,
    wrong_calls: int | None = None,
    fit: tuple[Tensor, Tensor] | None = None,
) -> dict[str, Any]:
    """Return what tells an evaluation from others, as its state file holds it; arguments and errors as in `evaluate`.

    Example:
        >>> from uiat import Linf
        >>> model, x, y = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(8, 1, 2, 2), torch.arange(8) % 2
        >>> one, other = (identify(model, x, y, threat=Linf(0.1), attacks=["fgsm"], seed=seed) for seed in (0, 1))
        >>> [name for name in one if one[name] != other[name]]
        ['seed']
    """
    check_ordinary(model)
    if isinstance(x, Tensor) and y is not None:
        x, y = ordinary(x), ordinary(y)
    plan = make_plan(attacks, threat, transfer)
    example = ordinary(x.head[0]) if isinstance(x, Stream) else x
    plan = plan if Target(model, example).differentiable else drop_gradient_attacks(plan)[0]
    rule = CallRule(calls=calls, wrong=wrong_calls)
    return identity_of(model, x, y, threat, plan, seed, keep_examples, transfer, rule, fit)


def identity_of(
    model: nn.Module,
    x: Tensor | Stream,
    y: Tensor | None,
    threat: Threat,
    plan: Plan,
    seed: int,
    examples: bool,
    transfer: nn.Module | None,
    rule: CallRule,
    fit: tuple[Tensor, Tensor] | None,
) -> dict[str, Any]:
    """Return the same of an evaluation whose attacks are planned; of a stream the name counts, not its images."""
    facts: dict[str, Any] = {
        "threat": threat_record(threat, exact=True),
        "attacks": budgets(plan),
        "order": list(plan),
        "seed": seed,
    }
    if rule.repeats:  # left out otherwise, as in files of before there were several calls
        facts["calls"] = [rule.least, rule.calls]
    if fit is not None and unfitted(plan):
        facts["fit"] = checksum(dict(zip("xy", fit, strict=True)))
    if isinstance(x, Stream) or y is None:
        assert isinstance(x, Stream)
        facts["stream"] = [x.name, x.total, list(x.image_shape)]
        x = y = torch.empty(0)
    return fingerprint(model, x, y, transfer=transfer, examples=examples, **facts)
