"""SCORE: TRADES with the squared distance of probabilities, a metric, in place of the divergence."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from uiat import losses
from uiat.attacks import PGD
from uiat.checks import Amount, BelowOne, checked, checked_fields
from uiat.models.misfit import explained
from uiat.objectives.base import Examples, adversarial_of, attack_batch, attack_threat, correct, stateless
from uiat.threat import Linf


def _squared_attack() -> PGD:
    return PGD(threat=Linf("8/255"), step_size="2/255", steps=10, loss="squared", start="gaussian")


@checked_fields
@dataclass(frozen=True, kw_only=True)
class Score:
    """||p(x) - e_y||^2 + beta ||p(x_adv) - p(x)||^2 (Pang et al. 2022, SCORE, with the squared error as the metric).

    "Robustness and Accuracy Could Be Reconcilable by (Proper) Definition", the TRADES form; e_y is the label. The sum
    of an example is clipped from below (section 5.2), so that examples that are already fitted give no gradient: that
    eases robust overfitting without extra data, where the authors also halve the learning rate. With extra data their
    attack starts in the ball and passes in train mode: `attack.start=uniform attack.batchnorm=train`.

    Args:
        attack: the inner maximisation of the squared distance.
        weight: beta; 6 without extra data, 3 to 4 with it.
        clip: c, in [0, 1): an example is fitted where its loss is that of a prediction of 1 - c for its class and equal
            parts of c for the others, c^2 K / (K - 1). The authors' 0.3 without extra data; 0 (off) with it.
        label_smoothing: fraction of the label spread over all classes, in [0, 1).

    Example:
        >>> Score().attack.loss
        'squared'
    """

    name: Literal["score"] = "score"
    attack: PGD = field(default_factory=_squared_attack)
    weight: Amount = 6.0
    clip: BelowOne = 0.3
    label_smoothing: BelowOne = 0.0

    threat = property(attack_threat)
    init = stateless
    perturb = attack_batch

    @checked
    @explained
    def loss(self, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        """Return {"squared": (B,), "squared_distance": (B,), "clipped": (B,)}: what clipping adds is a term too."""
        logits, adv_logits = model(examples.x), model(adversarial_of(examples))
        log_p, log_p_adv = losses.log_probabilities(logits), losses.log_probabilities(adv_logits)
        labels = losses.smooth_labels(examples.y, logits.shape[1], label_smoothing=self.label_smoothing)
        squared = (log_p.exp() - labels).square().sum(dim=1)
        distance = self.weight * losses.squared_distance(log_p, log_p_adv)
        whole, classes = squared + distance, logits.shape[1]
        return {
            "squared": squared,
            "squared_distance": distance,
            "clipped": whole.clamp_min(self.clip**2 * classes / (classes - 1)) - whole,
            "correct": correct(adv_logits, examples.y),
        }
