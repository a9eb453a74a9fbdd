"""Count the forward and backward passes of a training step, and the activations that it keeps."""

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from uiat.config.schema import Run
from uiat.data import Batch
from uiat.inverse import InverseGenerator
from uiat.models.inspect import device_of
from uiat.models.modes import frozen
from uiat.objectives.abilities import attack_of, phases, without_warm_start
from uiat.objectives.networks import teacher_method
from uiat.training.attack_memory import recall_starts
from uiat.training.optimizer import make_optimizer
from uiat.training.step import Step
from uiat.training.step_options import StepOptions


@dataclass
class PassCount:
    """Number of images that went through a model, by kind of pass.

    Args:
        forward: images in forward passes of any kind.
        input_backward: images in backward passes to the images alone, which compute no gradient of a weight.
        training_backward: images in backward passes to the weights.

    Example:
        >>> PassCount(forward=12, input_backward=10, training_backward=1).units
        24.0
    """

    forward: float = 0
    input_backward: float = 0
    training_backward: float = 0

    @property
    def units(self) -> float:
        """Cost in F, the price of a forward pass: a backward pass to images costs one more F, one to weights two."""
        return float(self.forward + self.input_backward + 2 * self.training_backward)

    def per(self, images: int) -> "PassCount":
        """Return the passes of one image, where `images` of them went through the step."""
        return PassCount(self.forward / images, self.input_backward / images, self.training_backward / images)


@contextmanager
def count_passes(model: nn.Module, example: Tensor, *others: nn.Module) -> Iterator[PassCount]:
    """Inside, images that pass through the model are counted, whether by `forward` or by `features` and `head`.

    They are counted at the first layer with weights that an image passes.

    Args:
        model: any module.
        example: an image (B, C, H, W), to find that layer.
        others: further networks, whose passes are counted like the model's; those of a generator of inverse examples by
            the fraction of the model's operations that it needs.

    Example:
        >>> model, x = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), torch.rand(3, 1, 2, 2)
        >>> with count_passes(model, x) as passes:
        ...     model(x).sum().backward()
        >>> passes
        PassCount(forward=3, input_backward=0, training_backward=3)
    """
    passes = PassCount()
    prices = {_first_layer(network, example): _price(network, model, example) for network in (model, *others)}

    def count_forward(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        price = prices[module]
        passes.forward += price * len(output)
        if output.requires_grad:
            training = any(p.requires_grad for p in module.parameters())
            output.register_hook(lambda gradient: count_backward(price * len(gradient), training))

    def count_backward(images: float, training: bool) -> None:
        if training:
            passes.training_backward += images
        else:
            passes.input_backward += images

    hooks = [layer.register_forward_hook(count_forward) for layer in prices]
    try:
        yield passes
    finally:
        for hook in hooks:
            hook.remove()


def _first_layer(model: nn.Module, example: Tensor) -> nn.Module:
    """Return the layer with weights that an image passes first, whatever the order in which layers are registered.

    Of a model that is frozen in part it is the first one that is trained: a backward pass to the weights ends there.
    """
    if isinstance(model, InverseGenerator):
        return model.first
    called: list[nn.Module] = []
    leaves = [m for m in model.modules() if not any(m.children()) and any(True for _ in m.parameters())]
    leaves = [m for m in leaves if any(p.requires_grad for p in m.parameters())] or leaves
    hooks = [m.register_forward_hook(lambda module, inputs, output: called.append(module)) for m in leaves]
    try:
        with torch.no_grad(), frozen(model):
            model(example[:1])
    finally:
        for hook in hooks:
            hook.remove()
    return called[0]


def _price(network: nn.Module, model: nn.Module, example: Tensor) -> float:
    """Return the cost of a pass in passes of the model: 1, but for a small generator of inverse examples."""
    if not isinstance(network, InverseGenerator):
        return 1
    y = torch.zeros(1, dtype=torch.int64, device=example.device)
    return count_flops(network, example, y) / max(1.0, count_flops(model, example))


def count_flops(model: nn.Module, example: Tensor, *others: Tensor) -> float:
    """Count the floating-point operations of a forward pass of one image, in convolutions and matrix products.

    Args:
        model: any module.
        example: images (B, C, H, W), of which the first is passed.
        others: further arguments of the model, for one image.

    Example:
        >>> count_flops(nn.Linear(4, 2), torch.rand(1, 4))
        16.0
    """
    with FlopCounterMode(display=False) as counter, torch.no_grad(), frozen(model):
        model(example[:1], *others)
    return float(counter.get_total_flops())


def step_for(run: Run, model: nn.Module, batch: Batch, *, num_classes: int, eager: bool = True) -> Step:
    """Make a run's training step on the examples of one batch, to measure its cost: it hardly moves a weight.

    A teacher is stood for by a copy of the model: one of another architecture costs something else.

    Args:
        run: every setting.
        model: the model of the run, on its device.
        batch: the examples that the step will be called with; their number is that of the training set.
        num_classes: K.
        eager: neither fold, compile nor record, so that layers are called one by one and can be counted; otherwise as
            the run has it.

    Example:
        >>> from uiat import models
        >>> model = models.build("small-cnn", num_classes=2, image_shape=(1, 8, 8), width=4)
        >>> batch = Batch(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]), torch.arange(4))
        >>> sorted(step_for(Run(), model, batch, num_classes=2)(batch))
        ['adv_ce', 'correct', 'inverse_kl']
    """
    options = StepOptions.from_run(run)
    if eager:
        options = replace(options, fold=False, compile=False, cuda_graphs=False)
    # A rate so small that training on noise takes no weight to infinity.
    optimizer = make_optimizer(model, replace(run.optimisation, learning_rate=1e-6), plain=run.compute.plain)
    _, c, h, w = batch.x.shape
    step = Step(
        model,
        without_warm_start(run.objective),  # the file may be elsewhere, and costs are the same from any start
        optimizer,
        num_classes=num_classes,
        image_shape=(c, h, w),
        num_examples=len(batch.y),
        options=options,
    )
    if teacher_method(run.objective) is not None:
        step.add_teacher(copy.deepcopy(model))
    step.check(batch)  # its passes are no passes of a step
    return step


def step_passes(run: Run, model: nn.Module, batch: Batch, *, num_classes: int) -> dict[tuple[int, int], PassCount]:
    """Count the passes of an image in a step of the run, by making them, for each of the run's `cost_phases`.

    Example:
        >>> from uiat import models
        >>> model = models.build("small-cnn", num_classes=2, image_shape=(1, 8, 8), width=4)
        >>> batch = Batch(torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 0, 1]), torch.arange(4))
        >>> {k: v.units for k, v in step_passes(Run(), model, batch, num_classes=2).items()}
        {(30, 0): 28.0}
    """
    step, counts = step_for(run, model, batch, num_classes=num_classes), {}
    for epochs, first in cost_phases(run):
        with count_passes(model, batch.x, *step.networks) as passes:
            step(batch, epoch=first)
        counts[epochs, first] = passes.per(len(batch.y))
    return counts


def cost_phases(run: Run) -> list[tuple[int, int]]:
    """Split a run's epochs into those whose steps cost the same.

    By the objective's phases, where AWP begins, and where the attack makes more steps than an epoch ago.

    Returns:
        (number of epochs, first of them counted from 0), in order.

    Example:
        >>> from uiat import recipes
        >>> cost_phases(recipes.get("digits-uiat-one-off"))
        [(10, 0), (1, 10), (29, 11)]
    """
    config = run.optimisation
    awp = config.awp_from_epoch if config.awp else 0
    firsts = {first for _, first in phases(run.objective, config.epochs)} | {min(awp, config.epochs)}
    if config.steps_warmup_epochs and attack_of(run.objective) is not None:
        objectives = [StepOptions.from_run(run).objective_at(run.objective, epoch) for epoch in range(config.epochs)]
        steps = [attack.steps for attack in map(attack_of, objectives) if attack is not None]
        firsts |= {epoch for epoch in range(1, config.epochs) if steps[epoch] != steps[epoch - 1]}
    return [(end - first, first) for first, end in itertools.pairwise(sorted({*firsts, config.epochs}))]


IMAGES = 8  # size of the batch of noise that passes and bytes are measured on


def step_cost(run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], classes: int) -> PassCount:
    """Count the passes of an image in a run's training step, as a mean over its epochs (see `cost_phases`).

    Args:
        run: every setting.
        model: a model of the run; a copy of it is trained on noise.
        image_shape: (C, H, W).
        classes: K.

    Example:
        >>> from uiat import PGDAT, models
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> step_cost(Run(objective=PGDAT()), model, image_shape=(1, 8, 8), classes=10).units
        23.0
    """
    model = copy.deepcopy(model).train()
    with torch.random.fork_rng():
        counts = step_passes(run, model, _make_noise(model, image_shape, classes), num_classes=classes)
    epochs = run.optimisation.epochs
    means = {
        name: sum(getattr(passes, name) * count for (count, _), passes in counts.items()) / epochs
        for name in ("forward", "input_backward", "training_backward")
    }
    return PassCount(**means)


def _make_noise(model: nn.Module, image_shape: tuple[int, int, int], classes: int) -> Batch:
    device, source = device_of(model), torch.Generator().manual_seed(0)
    x = torch.rand(IMAGES, *image_shape, generator=source).to(device)
    index = torch.arange(IMAGES, device=device)
    return Batch(x, index % classes, index)


def activation_bytes(run: Run, model: nn.Module, *, image_shape: tuple[int, int, int], classes: int) -> int:
    """Measure the bytes that the training passes of a step keep for their backward pass, for a batch of the run's size.

    In fp32, at the last epoch. It tells methods apart: a second training pass keeps as much again.

    Args:
        run: every setting.
        model: a model of the run; a copy of it is measured.
        image_shape: (C, H, W).
        classes: K.

    Example:
        >>> from uiat import PGDAT, UIAT, models
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> once, twice = (
        ...     activation_bytes(Run(objective=o), model, image_shape=(1, 8, 8), classes=10) for o in (PGDAT(), UIAT())
        ... )
        >>> 1.8 < twice / once < 2.2
        True
    """
    model = copy.deepcopy(model).train()
    batch = _make_noise(model, image_shape, classes)
    step = step_for(run, model, batch, num_classes=classes)
    # Autograd also saves weights and buffers, which are there anyway; and one storage may be saved several times.
    networks = (model, *step.networks)
    of_model = {tensor.data_ptr() for m in networks for tensor in (*m.parameters(), *m.buffers())}
    saved: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in of_model:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.random.fork_rng():
        batch = recall_starts(step.objective, step.state, batch)
        examples = step.objective.perturb(model, batch, step.state, epoch=run.optimisation.epochs - 1)
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            terms = step.objective.loss(model, examples)
    del terms
    return sum(saved.values()) * run.data.batch_size // IMAGES
