"""A sweep of digits that takes a moment: an epoch of 96 images, a CNN of width 4, 40 images evaluated."""

SMALL = {
    **{"optimisation.epochs": "1", "data.subset": "96", "model.width": "4", "validation.steps": "1"},
    **{"evaluation.n": "40", "evaluation.attacks": "[clean, fgsm]", "objective.attack.steps": "1"},
    "objective.attack.step_size": "0.2",
}
