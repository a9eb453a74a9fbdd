"""Guards: what is not finite, accuracy at chance, catastrophic overfitting: each is told apart and said once."""

import copy
import math

import pytest
import torch
from torch import nn

from uiat import LBGAT, NotFinite, UserError, recipes, train
from uiat.config.yaml_io import override
from uiat.training.guards import find_catastrophic_overfitting, find_chance, require_finite, require_finite_weights


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_term_that_is_not_finite_is_named(value):
    with pytest.raises(NotFinite, match=r"loss term kl is not finite \(-?(nan|inf)\) in epoch 3, by step 7: .* run/c"):
        require_finite({"ce": 1.0, "kl": value}, epoch=2, step=7, kept="run/c")
    require_finite({"ce": 1.0, "kl": 1e30}, epoch=2, step=7, kept="run/c")


def test_not_finite_is_a_users_error():
    assert issubclass(NotFinite, UserError)


def test_a_weight_that_is_not_finite_is_named():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[0].bias.requires_grad_(False).fill_(-math.inf)  # a mask, say: not trained, so none of the guard's business
    state = LBGAT().init(num_classes=2, image_shape=(1, 1, 2))
    state.natural = copy.deepcopy(model)
    state.register_buffer("z", torch.zeros(2))
    require_finite_weights(model, state, epoch=0, step=1, kept="none")
    for what, place in (
        ("weight 1.weight", model[1].weight),
        ("natural.1.bias of", state.natural[1].bias),
        ("z", state.z),
    ):
        kept = place.detach().clone()
        place.data[..., 1] = math.nan
        with pytest.raises(NotFinite, match=rf"{what}.* is not finite in epoch 1, by step 1"):
            require_finite_weights(model, state, epoch=0, step=1, kept="none")
        place.data.copy_(kept)
    require_finite_weights(nn.Flatten(), nn.Module(), epoch=0, step=1, kept="none")


def rows(*clean, every=1):
    """A history in which every few epochs one is validated."""
    values = iter(clean)
    return [
        {"epoch": i, "clean": next(values)} if (i + 1) % every == 0 else {"epoch": i} for i in range(len(clean) * every)
    ]


@pytest.mark.parametrize("every", [1, 2, 4])
def test_chance_is_said_once_at_the_first_validation_after_the_epochs(every):
    history = rows(*[0.1] * 12, every=every)
    said = [i + 1 for i in range(len(history)) if find_chance(history[: i + 1], num_classes=10, epochs=5)]
    assert said == [{1: 5, 2: 6, 4: 8}[every]]


def test_chance_is_not_said_of_a_run_that_learns_or_was_not_validated():
    assert find_chance(rows(0.1, 0.13), num_classes=10, epochs=2) is None
    assert find_chance(rows(0.5, 0.1), num_classes=10, epochs=2) is None
    assert find_chance([{"epoch": 1}], num_classes=10, epochs=2) is None
    assert find_chance([], num_classes=10, epochs=2) is None
    alarm = find_chance(rows(0.1, 0.12), num_classes=10, epochs=2)
    assert alarm.kind == "chance"
    assert "after 2 epochs clean validation accuracy is 12.0%, still at chance (10.0%)" in alarm.message


def validated(*pairs):
    return [{"epoch": i, "robust": robust, "train_correct": train} for i, (robust, train) in enumerate(pairs)]


@pytest.mark.parametrize(
    ("pairs", "alarmed"),
    [
        ([(0.4, 0.5), (0.0, 0.8)], True),
        ([(0.4, 0.5), (0.5, 0.55), (0.2, 0.9)], True),
        ([(0.4, 0.5), (0.3, 0.8)], False),  # ordinary robust overfitting
        ([(0.4, 0.5), (0.0, 0.4)], False),  # training broke down altogether
        ([(0.12, 0.2), (0.0, 0.8)], True),  # nothing robust was ever learnt
        ([(0.0, 0.6), (0.0, 0.8)], True),
        ([(0.0, 0.2), (0.0, 0.6), (0.0, 0.8)], False),  # said before
        ([(0.0, 0.2), (0.0, 0.45)], False),  # nor were training images
        ([(0.1, 0.5), (0.12, 0.8)], False),  # more than a tenth as many
        ([(0.0, 0.8)], False),
        ([], False),
    ],
)
def test_catastrophic_overfitting(pairs, alarmed):
    alarm = find_catastrophic_overfitting(validated(*pairs), num_classes=10)
    assert (alarm is not None) == alarmed
    if alarm:
        assert alarm.kind == "overfitting"
        assert f"in epoch {len(pairs)}" in alarm.message


def test_a_run_that_was_never_robust_is_said_to_have_stayed_there():
    alarm = find_catastrophic_overfitting(validated((0.01, 0.2), (0.03, 0.6)), num_classes=10)
    assert "never left 3.0%" in alarm.message


def test_a_radius_that_still_grows_is_no_sign_and_a_collapse_under_it_is_one():
    history = validated((0.01, 0.5), (0.01, 0.7), (0.01, 0.7), (0.01, 0.7))
    said = [i for i in range(1, 5) if find_catastrophic_overfitting(history[:i], num_classes=10, weak_epochs=3)]
    assert said == [4]
    assert find_catastrophic_overfitting(history[:2], num_classes=10)
    fallen = validated((0.4, 0.5), (0.05, 0.8))
    assert find_catastrophic_overfitting(fallen, num_classes=10, weak_epochs=9)


def test_standard_training_is_not_said_to_overfit_an_attack(tmp_path):
    run = override(recipes.get("digits-standard"), [("optimisation.epochs", "6")])
    history = train(run, run_dir=tmp_path / "run").history
    assert history[-1]["train_correct"] > 0.5
    assert history[-1]["robust"] < 0.05
    assert not any(row["alarms"] for row in history)


@pytest.mark.slow
def test_single_step_training_at_a_large_radius_is_caught(tmp_path):
    settings = [("objective.attack.threat.epsilon", "0.4"), ("objective.attack.step_size", "0.4")]
    settings += [("evaluation.threat.epsilon", "0.4"), ("optimisation.epochs", "25"), ("guards.overfitting", "stop")]
    history = train(override(recipes.get("digits-fgsm"), settings), run_dir=tmp_path / "run").history
    assert len(history) < 25
    assert "catastrophic overfitting" in history[-1]["alarms"][0]


def test_an_epoch_that_was_not_validated_repeats_no_alarm():
    history = [*validated((0.4, 0.5), (0.0, 0.8)), {"epoch": 2, "train_correct": 0.9}]
    assert find_catastrophic_overfitting(history, num_classes=10) is None


def test_an_objective_that_does_not_measure_training_accuracy_is_let_be():
    history = [{"epoch": 0, "robust": 0.4}, {"epoch": 1, "robust": 0.0}]
    assert find_catastrophic_overfitting(history, num_classes=10) is None
