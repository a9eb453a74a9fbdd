"""What a training run spends beside its steps, and whether its memory grows: small-cnn on real CIFAR-10.

    python benchmarks/training/overhead.py --root DATA --threads 2

The run is that of `uiat train`, with its folder, checkpoints, metrics and progress display. "Beside the steps" is the
time of an epoch's loop (loading, augmentation, schedule, sums, progress, looks at the losses) less that inside steps.
Memory is what the process holds at the end of each epoch.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import torch
from rich.console import Console

import uiat
from uiat.cli.training_progress import training_progress
from uiat.system.environment import describe_environment
from uiat.training.api import start_run


def resident() -> float:
    """MiB that the process holds; Linux."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Timed:
    """A step, and the seconds spent in it."""

    def __init__(self, step) -> None:
        self.step, self.state, self.seconds = step, step.state, 0.0

    def __call__(self, batch, *, epoch):
        """The step."""
        start = time.perf_counter()
        terms = self.step(batch, epoch=epoch)
        self.seconds += time.perf_counter() - start
        return terms


class Told:
    """A listener that also keeps a line of the table each epoch (the display of the progress takes what is printed)."""

    def __init__(self, listener, step: Timed) -> None:
        self.listener, self.timed, self.before = listener, step, 0.0
        self.lines: list[str] = []
        self.step = listener.step

    def epoch(self, row) -> None:
        """An epoch is done."""
        self.listener.epoch(row)
        inside, self.before = self.timed.seconds - self.before, self.timed.seconds
        beside = 100 * (1 - inside / row["seconds"])
        self.lines.append(f"| {row['epoch'] + 1} | {inside:.1f} | {beside:.2f} | {resident():.0f} |")


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
    # The display of a terminal, drawn to nowhere.
    with open(os.devnull, "w") as nowhere, tempfile.TemporaryDirectory() as folder:
        console = Console(file=nowhere, force_terminal=True)
        with start_run(run, run_dir=Path(folder) / "run") as training, training_progress(run, console) as listener:
            training.step = step = Timed(training.step)
            training.listener = told = Told(listener, step)
            training.fit()
    print("\n".join(told.lines))
    facts = describe_environment()
    threads = f"{arguments.threads} of {facts['cores']} cores"
    print(f"\n{training.run.compute.precision}, {facts['processor']}, {threads}, torch {facts['torch']}")


if __name__ == "__main__":
    main()
