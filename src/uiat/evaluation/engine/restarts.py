"""PGD and attacks from outside, batch by batch: what they find is verified, and can be resumed between two batches."""

import zlib
from dataclasses import replace

import torch
from torch import Tensor, nn

from uiat.attacks import PGD, External
from uiat.attacks.random_numbers import keys, rekey
from uiat.evaluation.engine.attack_target import AttackTarget, Guide, exact_inference
from uiat.evaluation.engine.search_runner import Saver, State
from uiat.evaluation.listener import OnProgress


class _CountedModule(nn.Module):
    """The model as a module whose passes are counted: other people's attacks ask for its parameters and its mode."""

    def __init__(self, module: nn.Module, counting: Guide) -> None:
        super().__init__()
        self.module, self.counting = module, counting

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (b, k) of images."""
        return self.counting(x)


class Restarts:
    """PGD batch by batch, a restart at a time; a restart is only spent on images that survived the one before it.

    An image whose example not every call of the rule misclassifies survives, and keeps the one that most of them do.

    Args:
        target: the model and its images.
        stage: name of the attack, which decides its random numbers.
        settings: the attack; one from outside is one restart.
        mask: the images to attack.

    Example:
        >>> import torch
        >>> from uiat.evaluation.engine.search_runner import AdaptiveBatchSize
        >>> from uiat.models.inspect import Target
        >>> from uiat.threat import Linf
        >>> x, y = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
        >>> model = Target(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), x)
        >>> target = AttackTarget(model, x, y, torch.arange(2), AdaptiveBatchSize(2))
        >>> run = Restarts(target, "pgd", PGD(threat=Linf(0.1)), torch.tensor([True, True]))
        >>> correct, x_adv = run.finish(on_progress=lambda done, total, correct: None, saver=None)
        >>> correct.shape, x_adv.shape
        (torch.Size([2]), torch.Size([2, 1, 2, 2]))
    """

    def __init__(self, target: AttackTarget, stage: str, settings: PGD | External, mask: Tensor) -> None:
        self.target, self.settings, self.mask = target, settings, mask
        self.key = rekey(keys(target.seed, target.index), zlib.crc32(stage.encode()))
        self.correct, self.x_adv = mask.clone(), target.x.detach().clone()
        self.confidence = torch.full((len(mask),), torch.nan, dtype=torch.float64)  # of each image's last example
        # Calls that misclassify x_adv. With one call only an example that breaks the image counts, with several any.
        self.most_wrong = torch.full((len(mask),), -1 if target.rule.repeats else 0)
        # The restart under way, the rows that it is spent on, and how many of them are done.
        self.restart, self.rows, self.done = 0, mask.nonzero().flatten(), 0

    def finish(self, *, on_progress: OnProgress, saver: Saver | None) -> tuple[Tensor, Tensor]:
        """Run all restarts to their end, from wherever the attack is."""
        restarts = self.settings.restarts if isinstance(self.settings, PGD) else 1
        while True:
            for done in self.target.batch_size.batches(self.rows, self._attack, done=self.done):
                self.done = done
                before = self.restart * len(self.rows)
                on_progress(before + done, len(self.rows) * restarts, int(self.correct.sum()))
                if saver is not None:
                    saver(self.snapshot)
            if self.restart + 1 == restarts:
                return self.correct, self.x_adv
            self.restart, self.rows, self.done = self.restart + 1, self.correct.nonzero().flatten(), 0

    def _attack(self, rows: Tensor) -> None:
        target = self.target
        x, y, key = (v[rows].to(target.device) for v in (target.x, target.y, rekey(self.key, self.restart)))
        if isinstance(self.settings, PGD):
            x_adv = self._perturb(replace(self.settings, restarts=1), x, y, key)
        else:
            x_adv = self._call(self.settings, x, y, key)
        with exact_inference(target.module):
            count, self.confidence[rows] = target.count_wrong(x_adv, rows)
        better = count > self.most_wrong[rows]
        self.most_wrong[rows] = torch.maximum(count, self.most_wrong[rows])
        self.correct[rows] = self.most_wrong[rows] < target.rule.calls
        self.x_adv[rows[better]] = x_adv.to(self.x_adv)[better.to(self.x_adv.device)]

    def _perturb(self, once: PGD, x: Tensor, y: Tensor, key: Tensor) -> Tensor:
        # A fast copy is in eval mode for good.
        guide = self.target.guided if once.batchnorm == "eval" else self.target.model
        with exact_inference(self.target.module, batchnorm=once.batchnorm):
            return once.perturb(guide, x, y, key=key)

    def _call(self, attack: External, x: Tensor, y: Tensor, key: Tensor) -> Tensor:
        """Return the examples of a callable, and count those that were projected or left as they were."""
        # The seed is that of the batch's first image, so that a resumed attack draws what it would have drawn.
        model, seed = _CountedModule(self.target.module, self.target.model), int(key[0]) & (2**31 - 1)
        with exact_inference(self.target.module):
            x_adv, projected = attack.perturb(model.eval(), x, y, seed=seed)
        self.target.add_count("projected", int(projected.sum()))
        self.target.add_count("attacked", len(x))
        self.target.add_count("unchanged", int((x_adv == x).flatten(1).all(1).sum()))
        return x_adv

    def snapshot(self) -> State:
        """Return what `restore` needs to resume from here."""
        broken = self.mask & ~self.correct
        tensors = {"right": self.correct.clone(), "left": self.rows, "found": self.x_adv[broken]}
        tensors["confidence"] = self.confidence.clone()
        if self.target.rule.repeats:
            tensors |= {"best": self.x_adv.clone(), "most_wrong": self.most_wrong.clone()}
        return tensors, {"restart": self.restart, "done": self.done}

    def restore(self, state: State) -> None:
        """Resume from a snapshot."""
        tensors, meta = state
        self.correct, self.rows = tensors["right"].clone(), tensors["left"]
        self.x_adv[self.mask & ~self.correct] = tensors["found"].to(self.x_adv)
        self.confidence = tensors.get("confidence", self.confidence).clone()  # older files have none
        if "best" in tensors:
            self.x_adv, self.most_wrong = tensors["best"].to(self.x_adv), tensors["most_wrong"].clone()
        self.restart, self.done = int(meta["restart"]), int(meta["done"])
