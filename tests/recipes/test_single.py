"""Runs with names of their own."""

import torch

from uiat import fit, models, override, recipes


def test_the_record_takes_its_steps_on_a_cpu():
    """One epoch of two batches on a narrow net and small images; weights averaged and perturbed as in the recipe."""
    run = recipes.get("cifar10-resnet18-record")
    assert (run.optimisation.awp, run.optimisation.average, run.optimisation.epochs) == (0.005, "ema", 100)
    assert (run.objective.weight, run.objective.inverse_gradient, run.model.name) == (1.0, False, "resnet18")
    short = [("optimisation.epochs", "1"), ("optimisation.awp_from_epoch", "0"), ("objective.attack.steps", "1")]
    run = override(run, [*short, ("validation.steps", "1")])
    torch.manual_seed(0)
    model = models.build(run.model.name, num_classes=10, image_shape=(3, 8, 8), width=4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    x, y = torch.rand(20, 3, 8, 8), torch.arange(20) % 10
    options = {"optimisation": run.optimisation, "validation": run.validation, "batch_size": 10, "progress": False}
    trained = fit(model, (x, y), objective=run.objective, validation_data=(x[:10], y[:10]), **options)
    (row,) = trained.history
    assert {"train_adv_ce", "train_inverse_kl"} <= row.keys()
    after = dict(trained.model.named_parameters())
    assert all(bool(p.isfinite().all()) for p in after.values())
    # A perturbed step of the optimiser, of which a running average of decay 0.999 keeps little but not nothing.
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert trained.inverse.z.abs().max().item() > 0
