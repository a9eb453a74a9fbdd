"""One training step: inner problems, weight perturbation, loss and backward pass, optimiser, in this order.

`Step._compute_gradients` is the algorithm; what is around it decides how it is computed. `uiat.make_step` gives a step
to one's own loop, and recipes and `uiat.fit` train with the same one.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import Optimizer

from uiat.checks import Classes, Count, Side, check_shapes, checked
from uiat.data import Batch
from uiat.errors import UserError
from uiat.models.modes import find_frozen_parts, frozen_statistics, train_mode
from uiat.models.outputs import logits_only
from uiat.objectives import Examples, Objective, total
from uiat.objectives.abilities import describe_batches, is_second_order, require_soft_labels
from uiat.objectives.networks import add_networks, add_teacher, networks_in, teacher_method
from uiat.speed.activation_checkpointing import checkpointed_blocks, find_blocks
from uiat.speed.cuda_graphs import GraphedSteps
from uiat.speed.cudnn import cudnn_benchmark
from uiat.speed.inner_model import InnerModel
from uiat.speed.malloc import keep_memory
from uiat.system.surroundings import neutral_surroundings
from uiat.training.attack_memory import add_memory, recall_starts, remember_ends
from uiat.training.averaging import average_statistics
from uiat.training.awp import adversarial_weights
from uiat.training.first_batch import check_first_batch
from uiat.training.optimizer import add_network
from uiat.training.parallel import average_gradients, exchanges_within, split_rows, start_alike, training_form
from uiat.training.replays import move_examples
from uiat.training.step_options import StepKeywords, StepOptions, autocast
from uiat.training.teacher import check_teacher


class Step:
    """`step(batch, epoch=)` trains on one batch and returns the means of the loss terms, as tensors on the device.

    `print(step)` says of which weights, images and attack they are. Made by `make_step`, whose arguments these are.

    Attributes:
        state: the objective's state (perturbations, remembered predictions), a module of buffers and, for some
            methods, of networks; those of them that are trained are in the optimiser too.
        options: how the step is computed, see `uiat.training.step_options.StepOptions`.
        inner_model: called, the network that the inner problems pass in the next step.
        graphed: the recorded step, on a GPU.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: Optimizer,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        num_examples: int | None,
        options: StepOptions,
    ) -> None:
        self.device = next(model.parameters()).device
        keep_memory(self.device)
        start_alike(model)
        state = objective.init(num_classes=num_classes, image_shape=image_shape, num_examples=num_examples)
        add_networks(objective, state, model)
        add_memory(objective, state, image_shape=image_shape, num_examples=num_examples)
        self.model, self.objective, self.optimizer, self.state = model, objective, optimizer, state.to(self.device)
        start_alike(self.state)  # its first values are drawn too
        self._trained = [p for p in state.parameters() if p.requires_grad]  # of a second network (LBGAT)
        if self._trained:
            add_network(optimizer, self._trained)
        self.options = options.adapt_to(objective, self.device)
        if options.awp and not any(p.requires_grad and p.ndim > 1 for p in model.parameters()):
            raise UserError("awp perturbs weights of two dimensions and more, and the model trains none: leave it out")
        if within := exchanges_within(model):
            self.options = replace(self.options, cuda_graphs=False)
        half = options.precision == "bf16"
        # Inner problems run the same parameters through one fixed graph many times a step; training passes do not,
        # and repay compilation on a GPU alone.
        self.inner_model = InnerModel(model, image_shape, fold=self.options.fold, half=half, compile=options.compile)
        compiled = options.compile and self.device.type == "cuda" and not (within or is_second_order(objective))
        self.training_model = training_form(model, compiled=compiled, recorded=self.options.cuda_graphs)
        by_itself = isinstance(self.training_model, DistributedDataParallel)
        self._averaged = self._trained if by_itself else [*model.parameters(), *self._trained]
        self.checkpointing = partial(checkpointed_blocks, find_blocks(model)) if options.recompute else nullcontext
        self.graphed = self._make_recorder() if self.options.cuda_graphs else None
        self._objectives: dict[int, Objective] = {}
        self._num_classes, self._image_shape, self._checked = num_classes, tuple(image_shape), False
        self._set_aside = find_frozen_parts(model)

    def _make_recorder(self) -> GraphedSteps:
        parameters = (*self.model.parameters(), *self._trained)
        return GraphedSteps(lambda batch, epoch: self._compute_gradients(batch, epoch)[0], parameters)

    def __repr__(self) -> str:
        awp = ", perturbed by AWP" if self.options.awp else ""
        return f'step of {self.objective.name}; its terms and "correct": {describe_batches(self.objective)}{awp}'

    @neutral_surroundings()
    def __call__(self, batch: Batch, *, epoch: int = 0) -> dict[str, Tensor]:
        """Train on one batch; no host synchronisation after the first call, which checks the values.

        Args:
            batch: images in [0, 1], labels and, for per-example momentum, positions in the training set.
            epoch: number of the epoch, from 0; decides ramps, one-off epochs and when AWP begins.

        Returns:
            Means over the batch, as scalars on the device: of each loss term, and "correct", the fraction of the images
            that the model classifies correctly. Both are of the weights before the update (under AWP of the perturbed
            ones), in train mode, on the batch's images as the method's attack has changed them: of PGD-AT, the accuracy
            on attacked batches, and not a clean accuracy; of standard training, on the images as they are.

        Raises:
            UserError: images or labels that cannot be what was meant.
        """
        x_adv: Tensor | None = None
        with cudnn_benchmark(self.options.try_kernels):
            if not self._checked:
                self.check(batch)
            self._check_again(batch)
            train_mode(self.model, self._set_aside)
            with logits_only(self.model):
                for _ in range(max(1, self.options.replays)):
                    means, x_adv = self._update(batch, epoch, x_adv)
        return means

    def add_teacher(self, teacher: nn.Module) -> None:
        """Give the step the teacher that its objective asks; it is put into eval mode, on the step's device.

        Raises:
            UserError: it takes other images, or tells other classes apart.
        """
        check_teacher(teacher, num_classes=self._num_classes, image_shape=self._image_shape)
        add_teacher(self.state, teacher.to(self.device))

    @property
    def networks(self) -> list[nn.Module]:
        """The networks beside the model: those that change with it, and the teacher."""
        return networks_in(self.state)

    @property
    def set_aside(self) -> list[str]:
        """Names of the frozen parts, which stay in eval mode."""
        return [name for name, part in self.model.named_modules() if any(part is each for each in self._set_aside)]

    def release(self) -> None:
        """Free gradients and, on a GPU, the memory of the recorded step: at the end of an epoch."""
        self._free_gradients()
        if self.graphed is not None:
            self.graphed.forget()

    def check(self, batch: Batch) -> None:
        """Refuse what cannot be trained on or with (`check_first_batch`); the first call does so before its update."""
        if teacher_method(self.objective) is not None and not hasattr(self.state, "teacher"):
            raise UserError(f"{self.objective.name} asks a teacher: give make_step one, teacher=model")
        shape = {"num_classes": self._num_classes, "image_shape": self._image_shape}
        check_first_batch(batch, self.model, self.optimizer, self.objective, **shape)  # type: ignore[arg-type]
        self._checked = True

    def _check_again(self, batch: Batch) -> None:
        """Refuse what a later batch may have wrong; nothing here waits for the device."""
        check_shapes(batch.x, batch.y)
        if batch.soft_labels is not None:
            require_soft_labels(self.objective)

    def objective_at(self, epoch: int) -> Objective:
        """Return the objective of an epoch: while the attack warms up, that of a weaker attack."""
        if epoch not in self._objectives:
            self._objectives[epoch] = self.options.objective_at(self.objective, epoch)
        return self._objectives[epoch]

    def _update(self, batch: Batch, epoch: int, x_adv: Tensor | None) -> tuple[dict[str, Tensor], Tensor | None]:
        """Update the weights once; returns the means of the terms and, with replays, the moved adversarial examples."""
        if self.graphed is None:
            means, x_adv = self._compute_gradients(batch, epoch, x_adv)
        else:
            means = self.graphed(batch, epoch)
        average_gradients(self._averaged)
        if self.options.clip_norm is not None:
            held = [p for group in self.optimizer.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(held, self.options.clip_norm)
        self.optimizer.step()
        average_statistics(self.model)
        if self._trained:
            for network in self.state.children():
                average_statistics(network)
        return means, x_adv

    def _compute_gradients(
        self, batch: Batch, epoch: int, x_adv: Tensor | None = None
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """Leave the gradients of a batch in the parameters: the training algorithm, part by part of the batch.

        Args:
            batch: the whole batch.
            epoch: number of the epoch, from 0.
            x_adv: adversarial examples as the last replay moved them; None without replays and in the first one.

        Returns:
            Means of the loss terms and, with replays, the moved adversarial examples.
        """
        self._free_gradients()
        objective = self.objective_at(epoch)
        means, moved = dict[str, Tensor](), list[Tensor]()
        parts: Iterable[Examples] = self._craft(objective, batch, epoch, x_adv)
        weights: AbstractContextManager[None] = nullcontext()
        if self.options.awp and epoch >= self.options.awp_from_epoch:
            parts = list(parts)
            weights = self._perturbed_weights(objective, parts)
        with weights:
            for examples in parts:
                with self.checkpointing():
                    terms = self._loss_terms(objective, self.training_model, examples)
                    loss, fraction = total(terms).mean(), len(examples.y) / len(batch.y)
                    (loss if fraction == 1 else fraction * loss).backward()
                for name, value in terms.items():
                    mean = fraction * value.detach().float().mean()
                    means[name] = means[name] + mean if name in means else mean
                if self.options.replays:
                    moved.append(move_examples(objective, examples))
        return means, torch.cat(moved) if moved else None

    def _craft(self, objective: Objective, batch: Batch, epoch: int, x_adv: Tensor | None) -> Iterator[Examples]:
        """Solve the inner problems of each part of a batch: x_adv by the attack, then x_inv by the inverse adversary.

        The universal perturbations z and the remembered predictions p_bar change here and nowhere else.
        """
        for rows in split_rows(len(batch.y), self.options.accumulate):
            with self.autocast(), self.checkpointing():
                part = recall_starts(self.objective, self.state, batch[rows])
                examples = objective.perturb(self.inner_model(), part, self.state, epoch=epoch)
                remember_ends(self.objective, self.state, part, examples)
            if self.options.replays:
                start = examples.x_adv if x_adv is None else x_adv[rows]
                assert start is not None  # `check_replays` refuses methods without an attack
                examples = replace(examples, x_adv=start.detach().requires_grad_())
            yield examples

    def _perturbed_weights(self, objective: Objective, parts: Sequence[Examples]) -> AbstractContextManager[None]:
        """Inside, the weights are at w + v of AWP, where the batch's loss is higher; one more training pass finds v."""
        count = sum(len(examples.y) for examples in parts)

        def loss(examples: Examples) -> Tensor:
            with self.checkpointing(), frozen_statistics(self.state):  # of a second network
                mean = total(self._loss_terms(objective, self.model, examples)).mean()
            return mean * (len(examples.y) / count)

        return adversarial_weights(self.model, *(partial(loss, examples) for examples in parts), gamma=self.options.awp)

    def _free_gradients(self) -> None:
        """Free all gradients, those too of parameters that the optimiser does not hold, which would pile up."""
        self.model.zero_grad(set_to_none=True)
        self.optimizer.zero_grad(set_to_none=True)

    def _loss_terms(self, objective: Objective, model: nn.Module, examples: Examples) -> dict[str, Tensor]:
        with self.autocast():
            terms = objective.loss(model, examples)
        shape = tuple(examples.y.shape)
        for name, value in terms.items():
            if value.shape != shape:  # (B, B) from a missing squeeze would train without complaint
                raise UserError(f"loss term {name!r} must have shape {shape}, not {tuple(value.shape)}")
        return terms

    def autocast(self) -> AbstractContextManager[object]:
        """Inside, passes are computed in the precision of the options."""
        return autocast(self.device, self.options.precision)


@checked
def make_step(
    model: nn.Module,
    objective: Objective,
    optimizer: Optimizer,
    *,
    num_classes: Classes,
    image_shape: tuple[Side, Side, Side],
    num_examples: Count | None = None,
    teacher: nn.Module | None = None,
    **options: Unpack[StepKeywords],
) -> Step:
    """Make the training step of an objective, for one's own loop; recipes and `uiat.fit` run the same.

    On a CPU the process keeps its memory from then on (`uiat.speed.malloc`). Where `torch.distributed` is initialised,
    each process gives its part of the batch, all of one size, and the step is that of the whole batch.

    Args:
        model: maps images in [0, 1] to logits (B, K); on its device, in the memory format that images will have.
        objective: such as `UIAT()`.
        optimizer: over the model's parameters. A method that trains a second network (LBGAT) adds it as another
            parameter group: make a learning-rate schedule after the step.
        num_classes: K.
        image_shape: (C, H, W).
        num_examples: N, size of the training set; for per-example momentum.
        teacher: trained network, for methods that ask one (HAT, DHAT: naturally trained; ARD, RSLAD: a robust one).
        options: `precision`, `clip_norm`, `radius_warmup_epochs`, `steps_warmup_epochs`, `awp`, `awp_from_epoch`,
            `fold`, `compile`, `accumulate`, `replays`, `recompute`, `cuda_graphs` and `try_kernels`, which
            `uiat.training.step_options.StepOptions` describes.

    Raises:
        UserError: options that the objective or this machine does not allow.

    Example:
        >>> from uiat import UIAT, Batch, models
        >>> model = models.build("small-cnn", num_classes=10, image_shape=(1, 8, 8), width=4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> step = make_step(model, UIAT(), optimizer, num_classes=10, image_shape=(1, 8, 8), awp=0.005)
        >>> terms = step(Batch(torch.rand(4, 1, 8, 8), torch.arange(4), torch.arange(4)), epoch=0)
        >>> sorted(terms)
        ['adv_ce', 'correct', 'inverse_kl']
    """
    step = Step(
        model,
        objective,
        optimizer,
        num_classes=num_classes,
        image_shape=image_shape,
        num_examples=num_examples,
        options=StepOptions(**options),
    )
    if teacher is not None:
        step.add_teacher(teacher)
    return step
