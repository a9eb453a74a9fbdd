"""Time that a training run spends beside its steps, and whether its memory grows: small-cnn on real CIFAR-10.

    python benchmarks/training/overhead.py --root DATA --threads 2

The run is that of `uiat train`, with its folder, checkpoints and metrics, and a listener that reads the loss terms as
often as the progress display does; drawing it is not counted. "Beside the steps" is the time of an epoch's loop
(loading, augmentation, schedule, sums, listener, checks of the losses) less that inside steps. Memory is what the
process holds at the end of each epoch.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch

import uiat
from uiat.system.environment import describe_environment
from uiat.training.open_run import start_run


def resident() -> float:
    """MiB that the process holds; Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Timed:
    """A step, and the seconds spent in it."""

    def __init__(self, step) -> None:
        self.step, self.state, self.seconds = step, step.state, 0.0
        self.release = step.release

    def __call__(self, batch, *, epoch):
        """The step."""
        start = time.perf_counter()
        terms = self.step(batch, epoch=epoch)
        self.seconds += time.perf_counter() - start
        return terms


class Table:
    """A listener that reads the terms four times a second, and prints a line of the table each epoch."""

    def __init__(self, step: Timed) -> None:
        self.timed, self.before, self.read = step, 0.0, 0.0

    def step(self, epoch, step, steps, terms, images) -> None:
        """Read the terms, which waits for the device, as often as a progress display."""
        if time.perf_counter() - self.read > 0.25:
            self.terms = {name: value.item() for name, value in terms.items()}
            self.read = time.perf_counter()

    def epoch(self, row) -> None:
        """Print the epoch."""
        inside, self.before = self.timed.seconds - self.before, self.timed.seconds
        beside = 100 * (1 - inside / row["seconds"])
        print(f"| {row['epoch'] + 1} | {inside:.1f} | {beside:.2f} | {resident():.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", help="folder of the data sets")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=10_000, help="of the training set")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    run = uiat.Run(
        data=uiat.Data(
            name="cifar10", root=arguments.root, subset=arguments.images, augment="crop-flip", batch_size=256
        ),
        model=uiat.Model(name="small-cnn"),
        optimisation=uiat.Optimisation(epochs=arguments.epochs, learning_rate=0.05),
        compute=uiat.Compute(precision="auto"),  # the faster the step, the more the rest of it counts
    )
    print("| epoch | steps, s | beside them, % | memory, MiB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, start_run(run, run_dir=Path(folder) / "run") as training:
        training.step = step = Timed(training.step)
        training.listener = Table(step)
        training.fit()
    facts = describe_environment()
    threads = f"{arguments.threads} of {facts['cores']} cores"
    print(f"\n{training.run.compute.precision}, {facts['processor']}, {threads}, torch {facts['torch']}")


if __name__ == "__main__":
    main()
