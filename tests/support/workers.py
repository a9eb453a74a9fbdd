"""The processes of tests/system/test_distributed.py: `torchrun ... workers.py OUT WORDS`, words such as none,resume."""

import contextlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import nn

import uiat
from uiat.data import Loader, load
from uiat.inverse import UniversalInverse
from uiat.speed import cuda_graphs
from uiat.system.distributed import current_rank, exchanges, process_group
from uiat.system.tensor_files import write_tensors
from uiat.training.optimizer import make_optimizer
from uiat.training.parallel import average_gradients
from uiat.training.step_options import StepOptions

STEPS = 20


class Block(nn.Module):
    """Something to compute again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 8, 3), nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps."""
        maps: torch.Tensor = self.act(self.conv(x))
        return maps


def network(seed: int = 5) -> nn.Module:
    """Without BatchNorm, which sees each process's part of a batch on its own."""
    torch.manual_seed(seed)
    return nn.Sequential(Block(), nn.Flatten(), nn.Linear(288, 10))


def trained(start: str) -> dict[str, torch.Tensor]:
    """Weights, z, the remembered predictions and the losses after twenty steps of one-row-an-example UIAT and AWP."""
    data = load("digits", "train")
    loader = Loader(data, batch_size=64, augment="crop", padding=1)
    # The sign of a gradient next to zero is the sign of its rounding, which differs with the order of a sum; so where
    # starts are random, and little is exactly zero, the norm is one without signs.
    threat, step, radius = (uiat.Linf(0.1), 0.03, 0.05) if start == "none" else (uiat.L2(1.0), 0.4, 0.5)
    attack = uiat.PGD(threat=threat, step_size=step, steps=3, start=start)
    inverse = UniversalInverse(radius=radius, step_size=radius / 4)
    objective = uiat.UIAT(attack=attack, momentum="example", inverse=inverse)
    model, config = network(), uiat.Optimisation(learning_rate=0.05)
    shape = {"num_classes": 10, "image_shape": data.image_shape, "num_examples": len(data)}
    train = uiat.make_step(
        model, objective, make_optimizer(model, config), awp=0.005, recompute=current_rank().size > 1, **shape
    )
    losses, batches = [], iter([*loader.epoch(0), *loader.epoch(1)])
    torch.manual_seed(3)
    for _ in range(STEPS):
        terms = train(next(batches), epoch=0)
        losses.append(current_rank().mean(torch.stack([terms["adv_ce"], terms["inverse_kl"]])))
    state = {f"state.{name}": value for name, value in train.state.named_buffers()}
    return {**model.state_dict(), **state, "losses": torch.stack(losses)}


def trained_rivals() -> dict[str, torch.Tensor]:
    """Weights and state after five steps of methods that weigh a batch, keep a table or train a second network."""
    data = load("digits", "train")
    kl = uiat.PGD(threat=uiat.L2(1.0), step_size=0.4, steps=3, loss="kl", start="gaussian")
    objectives = {
        "sat": uiat.SelfAdaptive(attack=kl, from_epoch=0),
        "dkl": uiat.DKL(attack=kl),
        "lbgat": uiat.LBGAT(attack=kl, weight=1.0),
        "adr": uiat.ADR(attack=kl, decay=0.5),
        "generator": uiat.UIAT(
            attack=replace(kl, loss="ce"), inverse=uiat.GeneratorInverse(radius=0.5, width=4, learning_rate=1e-5)
        ),
        "gairat": uiat.GAIRAT(attack=replace(kl, loss="ce"), from_epoch=0),
        "dhat": uiat.DHAT(
            attack=replace(kl, loss="ce"),
            inverse=uiat.InstanceInverse(radius=0.5, step_size=0.2, steps=2, regulariser="logit"),
        ),
        "memory": uiat.PGDAT(attack=uiat.PGD(threat=uiat.Linf(0.1), step_size=0.05, steps=1, start="memory")),
    }
    tensors = _refine_on_a_grid()
    for name, objective in objectives.items():
        model, batches = network(), Loader(data, batch_size=64, augment="crop-flip", padding=1).epoch(0)
        shape = {"num_classes": 10, "image_shape": data.image_shape, "num_examples": len(data)}
        teacher = network(6) if name == "dhat" else None
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        step = uiat.make_step(model, objective, optimizer, teacher=teacher, **shape)
        torch.manual_seed(3)
        for epoch in (0, 0, 1, 1, 2):
            step(next(batches), epoch=epoch)
        state = {**model.state_dict(), **{f"state.{key}": value for key, value in step.state.state_dict().items()}}
        tensors |= {f"{name}.{key}": value for key, value in state.items()}
    return tensors


def trained_recorded() -> dict[str, torch.Tensor]:
    """Weights after steps that a GPU would replay, and how many of them it would: those without an exchange.

    A stand-in for the recorder makes the work anew, and lets no process exchange anything in it.
    """

    def record(work: Any, batch: uiat.Batch, epoch: int, parameters: Any) -> Any:
        def replay(batch: uiat.Batch) -> dict[str, torch.Tensor]:
            with exchanges() as found:
                terms: dict[str, torch.Tensor] = work(batch, epoch)
            assert not found
            replays.append(epoch)
            return terms

        return replay

    attack = uiat.PGD(threat=uiat.L2(1.0), step_size=0.4, steps=3, start="none")  # the host draws nothing
    inverse = UniversalInverse(radius=0.5, step_size=0.2, epoch=0)
    objectives = {"pgd-at": uiat.PGDAT(attack=attack), "one-off": uiat.UIAT(attack=attack, inverse=inverse)}
    data, tensors = load("digits", "train"), {}
    with (
        mock.patch.object(cuda_graphs.RecordedStep, "record", record),
        mock.patch.object(cuda_graphs, "host_waits", partial(contextlib.nullcontext, [])),
        mock.patch.object(StepOptions, "adapt_to", lambda self, objective, device: self),
    ):
        for name, objective in objectives.items():
            # Processes that begin with other weights than the first one have its weights afterwards.
            model, batches = network(5 + current_rank().rank), iter(Loader(data, batch_size=64).epoch(0))
            optimizer, replays = torch.optim.SGD(model.parameters(), lr=0.05), list[int]()
            shape = {"num_classes": 10, "image_shape": data.image_shape, "num_examples": len(data)}
            step = uiat.make_step(model, objective, optimizer, cuda_graphs=True, **shape)
            torch.manual_seed(3)
            for epoch in (0, 0, 0, 0, 1, 1, 1):
                step(next(batches), epoch=epoch)
            tensors |= {f"{name}.{key}": value for key, value in model.state_dict().items()}
            tensors[f"{name}.replays"] = torch.tensor([replays.count(0), replays.count(1)])
    return tensors | _gradients_of_some()


def _gradients_of_some() -> dict[str, torch.Tensor]:
    """Averages of gradients that not each process has: of two layers each of two processes reaches one."""
    layers, rank = [nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)], current_rank()
    for k, layer in enumerate(layers[:2]):
        if rank.size == 1 or k == rank.rank:
            (layer(torch.full((1, 2), 1.0 + k)).sum() / (2 if rank.size == 1 else 1)).backward()
    average_gradients(p for layer in layers for p in layer.parameters())
    assert layers[2].weight.grad is None
    return {f"some.{k}": p.grad for k, p in enumerate(p for layer in layers[:2] for p in layer.parameters())}


def _refine_on_a_grid() -> dict[str, torch.Tensor]:
    """z and its momentum after three steps on a grid, with more classes than a batch has images, and with fewer."""
    inverse = UniversalInverse(radius=0.5, step_size=0.2, resolution="1/2", storage="float16", gradient_momentum=0.5)
    objective, tensors = uiat.UIAT(attack=uiat.PGD(threat=uiat.L2(1.0), step_size=0.4), inverse=inverse), {}
    for classes in (10, 100):
        state = objective.init(num_classes=classes, image_shape=(1, 8, 8))
        for batch, _ in zip(Loader(load("digits", "train"), batch_size=64).epoch(0), range(3), strict=False):
            inverse.update(state, batch.x - 0.5, batch.y, objective.threat)
        tensors |= {f"grid.{classes}.{name}": value for name, value in state.named_buffers()}
    return tensors


class Stopping:
    """A listener that stops in the middle of the first epoch, after a checkpoint and some steps more."""

    def step(self, epoch: int, step: int, steps: int, terms: Mapping[str, torch.Tensor], images: int) -> None:
        """Stop."""
        if step == 8:
            raise RuntimeError("stopped")

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Nothing."""


def stopped_and_whole(out: Path) -> None:
    """One run to its end, and the same one stopped in an epoch and resumed."""
    changes = [("optimisation.epochs", "1"), ("model.width", "4"), ("compute.checkpoint_steps", "5")]
    run = uiat.override(uiat.recipes.get("digits-fgsm-rs"), changes)
    uiat.train(run, run_dir=out / "whole")
    with contextlib.suppress(RuntimeError):
        uiat.train(run, run_dir=out / "stopped", listener=Stopping())
    uiat.resume(out / "stopped")


def main() -> None:
    """Each process writes what it holds at the end."""
    torch.set_num_threads(1)
    out = Path(sys.argv[1])
    with process_group() as rank:
        for word in sys.argv[2].split(","):
            if word == "resume":
                stopped_and_whole(out)
            else:
                makers = {"rivals": trained_rivals, "recorded": trained_recorded}
                found = makers[word]() if word in makers else trained(word)
                tensors = {k: v.float().contiguous() for k, v in found.items()}
                write_tensors(out / f"{word}-{rank.rank}-of-{rank.size}.safetensors", tensors, {})


if __name__ == "__main__":
    main()
