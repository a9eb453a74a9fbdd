"""Minutes to a robust accuracy on real CIFAR-10: the usual research loop, and ours, from the same first weights.

    python benchmarks/training/to_accuracy.py --root DATA --threads 2

Both train the `cifar10-small-pgd-at` recipe: its network, images, PGD-3, batches and learning rates. The research loop
is that of step_time.py: single precision, NCHW, attacks in training mode whose backward passes fill the gradients of
the weights, and a DataLoader that augments image by image. Ours runs with what "auto" comes to on this machine, and
for 1, 2, ... epochs in all until a run ends as robust as the research loop ended. PGD-20 on the recipe's 1,000 held-out
images judges both; that is not counted in the time.
"""

import argparse
import time
from dataclasses import replace

import torch
from step_time import OneByOne, research_step
from torch.utils.data import DataLoader

import uiat
from uiat.data import as_float
from uiat.system.environment import describe_environment
from uiat.training.optimizer import make_scheduler
from uiat.training.setup import load_datasets, model_spec


def robust(model: torch.nn.Module, held_out) -> float:
    """Return PGD-20 accuracy in per cent."""
    x, threat = as_float(held_out.images), uiat.Linf("8/255")
    result = uiat.evaluate(model, x, held_out.labels, threat=threat, attacks=("pgd-20",), selfchecks=False)
    return 100 * result.accuracy["pgd-20"]


def research(run: uiat.Run) -> tuple[float, float, float]:
    """Return PGD-20 accuracy, seconds by the wall and of the processor, of the loop as it is often written."""
    training_set, held_out = load_datasets(run.data, run.seed)
    attack, config = run.objective.attack, run.optimisation
    epsilon, step = float(attack.threat.epsilon), float(attack.step_size)
    torch.manual_seed(run.seed)
    model = uiat.models.build(**model_spec(run, training_set))
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        nesterov=config.nesterov,
    )
    images = OneByOne(training_set.images, training_set.labels)
    batches = DataLoader(images, run.data.batch_size, shuffle=True, num_workers=2, drop_last=True)
    scheduler = make_scheduler(optimizer, config, steps_per_epoch=len(batches))
    start, spent = time.perf_counter(), time.process_time()
    for _ in range(config.epochs):
        for x, y in batches:
            research_step(model, optimizer, x, y, epsilon=epsilon, step=step, steps=attack.steps)
            scheduler.step()
    took = time.perf_counter() - start, time.process_time() - spent
    return robust(model, held_out), *took


def ours(run: uiat.Run, epochs: int) -> tuple[float, float, float]:
    """Return the same of `uiat.fit`, its validation after the last epoch included."""
    run = replace(run, optimisation=replace(run.optimisation, epochs=epochs))
    run = replace(run, validation=replace(run.validation, every=epochs))
    data, held_out = load_datasets(run.data, run.seed)
    start, spent = time.perf_counter(), time.process_time()
    model = uiat.fit(
        uiat.models.build(**model_spec(run, data)),
        data,
        validation_data=held_out,
        objective=run.objective,
        optimisation=run.optimisation,
        validation=run.validation,
        compute=run.compute,
        batch_size=run.data.batch_size,
        augment=run.data.augment,
        seed=run.seed,
    ).model
    took = time.perf_counter() - start, time.process_time() - spent
    return robust(model, held_out), *took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--recipe", default="cifar10-small-pgd-at")
    parser.add_argument("--images", type=int, help="of the training set; the recipe's by default")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    settings = [("seed", str(arguments.seed)), *([("data.root", arguments.root)] if arguments.root else [])]
    settings += [("data.subset", str(arguments.images))] if arguments.images else []
    run = uiat.override(uiat.recipes.get(arguments.recipe), settings)
    print("| loop | epochs | PGD-20, % | minutes | of the processor | times faster |\n|---|---|---|---|---|---|")
    mark, wall, spent = research(run)
    print(f"| research | {run.optimisation.epochs} | {mark:.1f} | {wall / 60:.2f} | {spent / 60:.2f} | |", flush=True)
    for epochs in range(1, run.optimisation.epochs + 1):
        reached, own, used = ours(run, epochs)
        cells = f"{epochs} | {reached:.1f} | {own / 60:.2f} | {used / 60:.2f} | {wall / own:.2f}"
        print(f"| ours | {cells} |", flush=True)
        if reached >= mark:
            break
    facts = {k: describe_environment()[k] for k in ("torch", "processor", "cores", "threads")}
    print(f"\n{run.data.subset} training and 1,000 held-out images, seed {arguments.seed}, {facts}")


if __name__ == "__main__":
    main()
