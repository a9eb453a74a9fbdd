"""Time robust accuracy under PGD-20 by this project, torchattacks, foolbox and ART, in interleaved rounds.

    pip install torchattacks foolbox adversarial-robustness-toolbox  # for this benchmark alone
    python benchmarks/evaluation/peers_time.py RUN --n 256 --rounds 7 --threads 1

Everyone, in its usual use, takes 20 steps of epsilon / 4 from a random start on the same images. Time is the
processor's where there is one thread, so that a busy machine does not count; the wall's otherwise.
"""

import argparse
import os
import statistics
import time
import warnings
from pathlib import Path

import torch

import uiat
from uiat.data import as_float
from uiat.evaluation import correct_under
from uiat.experiments.images import evaluated_images
from uiat.runs.settings import read_run
from uiat.system.environment import describe_environment

STEPS = 20


def ours(model, x, y, epsilon):
    """Attack as a run validates itself: an image that is wrong already is not attacked."""
    attack = uiat.PGD(threat=uiat.Linf(epsilon), step_size=epsilon / 4, steps=STEPS)

    def run():
        clean = correct_under(model, x, y, None)
        return correct_under(model, x, y, attack, mask=clean)

    return run


def ours_every_image(model, x, y, epsilon):
    attack = uiat.PGD(threat=uiat.Linf(epsilon), step_size=epsilon / 4, steps=STEPS)
    return lambda: correct_under(model, x, y, attack)


def ours_unprepared(model, x, y, epsilon):
    """Call the library on one batch."""
    attack = uiat.PGD(threat=uiat.Linf(epsilon), step_size=epsilon / 4, steps=STEPS)
    return lambda: is_correct(model, attack(model, x, y), y)


def is_correct(model, x_adv, y):
    with torch.no_grad():
        return model(x_adv).argmax(dim=1) == y


def torchattacks(model, x, y, epsilon):
    import torchattacks

    attack = torchattacks.PGD(model, eps=epsilon, alpha=epsilon / 4, steps=STEPS)
    return lambda: is_correct(model, attack(x, y), y)


def foolbox(model, x, y, epsilon):
    import foolbox

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=x.device)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=epsilon / 4, steps=STEPS)
    return lambda: ~attack(wrapped, x, y, epsilons=epsilon)[2]


def art(model, x, y, epsilon):
    from art.attacks.evasion import ProjectedGradientDescent
    from art.estimators.classification import PyTorchClassifier

    wrapped = PyTorchClassifier(
        model, torch.nn.CrossEntropyLoss(), tuple(x.shape[1:]), model(x[:1]).shape[1], clip_values=(0, 1)
    )
    options = {"eps": epsilon, "eps_step": epsilon / 4, "max_iter": STEPS, "num_random_init": 1, "verbose": False}
    attack = ProjectedGradientDescent(wrapped, batch_size=len(x), **options)
    images, labels = x.numpy(), y.numpy()
    return lambda: is_correct(model, torch.from_numpy(attack.generate(images, labels)), y)


PEERS = (ours, ours_every_image, ours_unprepared, torchattacks, foolbox, art)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--n", type=int, default=256, help="images, in one batch")
    parser.add_argument("--rounds", type=int, default=7, help="of which the medians are shown, after one to warm up")
    parser.add_argument("--threads", type=int, default=1, help="threads of this process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")  # the peers' own
    images = evaluated_images(read_run(arguments.run), n=arguments.n)
    x, y = as_float(images.images), images.labels
    epsilon = float(uiat.load(arguments.run).threat.epsilon)
    runs = {peer.__name__: peer(uiat.load(arguments.run).eval(), x, y, epsilon) for peer in PEERS}
    clock = time.process_time if arguments.threads == 1 else time.perf_counter
    seconds, robust = {name: [] for name in runs}, {}
    for number in range(arguments.rounds + 1):
        for name, run in runs.items():
            start = clock()
            robust[name] = run().double().mean().item()
            if number:
                seconds[name].append(clock() - start)
    print("| PGD-20 | robust, % | seconds | times ours |\n|---|---|---|---|")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in medians.items():
        print(f"| {name} | {100 * robust[name]:.1f} | {value:.2f} | {value / medians['ours']:.2f} |")
    facts = describe_environment()
    what = f"{facts['processor']}, {arguments.threads} of {os.cpu_count()} cores, torch {facts['torch']}"
    print(f"\n{len(x)} images, medians of {arguments.rounds} rounds in turn, {clock.__name__}; {what}")


if __name__ == "__main__":
    main()
