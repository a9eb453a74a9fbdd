"""What the page asks: an image moved by a signed epsilon, and the probabilities that each model gives it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor, nn

from uiat.attacks import PGD
from uiat.data import ImageSet, as_float
from uiat.errors import UserError
from uiat.formatting import threat_text
from uiat.inverse import UniversalPerturbation
from uiat.models.modes import frozen
from uiat.shapes import Float, Int
from uiat.threat import Threat, to_range

STEPS = 10  # of the attack, each a quarter of epsilon long
PER_RADIUS = 8  # positions of the slider in the radius that the models were trained for
FARTHEST = 2 * PER_RADIUS  # position at each end of the slider


@dataclass(frozen=True)
class Subject:
    """A model on the page.

    Args:
        name: what it is called there.
        model: on its device, in eval mode.
        inverse: its universal perturbations; None where its method keeps none.

    Example:
        >>> Subject("mine", nn.Identity()).inverse is None
        True
    """

    name: str
    model: nn.Module
    inverse: UniversalPerturbation | None = None


@dataclass(frozen=True)
class Source:
    """Where a perturbation comes from.

    Args:
        kind: "pgd", an attack on each image, or "universal", one perturbation for all images of a class.
        model: place of the model among those of the page.

    Example:
        >>> Source("pgd", 0)
        Source(kind='pgd', model=0)
    """

    kind: Literal["pgd", "universal"]
    model: int


@dataclass(frozen=True)
class Question:
    """What a person asks of the page.

    Args:
        source: place among `Explorer.sources`.
        label: the class that the image is moved away from, or towards.
        position: of the slider, -16 to 16; epsilon is an eighth of the radius for each.
        image: place among the images; None for a drawn one.
        drawn: (C * H * W) bytes of a drawn image; None for one of the images.

    Example:
        >>> Question(source=0, label=3, position=-8, image=0).drawn is None
        True
    """

    source: int
    label: int
    position: int
    image: int | None = None
    drawn: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """A moved image, and what each model says of it.

    Args:
        image: (C, H, W) in [0, 1].
        probabilities: (M, K), a row for each model.

    Example:
        >>> Answer(torch.zeros(1, 8, 8), torch.full((2, 10), 0.1)).probabilities.shape
        torch.Size([2, 10])
    """

    image: Float[Tensor, "c h w"]
    probabilities: Float[Tensor, "m k"]


@dataclass(frozen=True)
class Explorer:
    """Models, the images to try them on, and the ball that images are moved in.

    Args:
        subjects: the models, of the same image shape and number of classes.
        images: the images to choose from.
        threat: the norm of every perturbation, and the radius that is half the slider's reach.
        device: that of the models.

    Example:
        >>> from uiat import Linf
        >>> images = ImageSet(torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1]), ("a", "b"), "example")
        >>> model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> explorer = Explorer([Subject("mine", model)], images, Linf(0.1), torch.device("cpu"))
        >>> moved = explorer.answer(Question(source=0, label=0, position=8, image=0)).image
        >>> round(float((moved - 0.5).abs().max()), 4)
        0.1
    """

    subjects: Sequence[Subject]
    images: ImageSet
    threat: Threat
    device: torch.device

    @cached_property
    def sources(self) -> list[Source]:
        """The perturbations to choose from: an attack on each model, then the universal ones that models have."""
        universal = [i for i, subject in enumerate(self.subjects) if subject.inverse is not None]
        return [Source("pgd", i) for i in range(len(self.subjects))] + [Source("universal", i) for i in universal]

    def epsilon(self, position: int) -> float:
        """Return the signed radius at a position of the slider, in units of [0, 1]."""
        return position * float(self.threat.epsilon) / PER_RADIUS

    def describe(self, source: Source) -> str:
        """Return a source in words."""
        name = self.subjects[source.model].name
        if source.kind == "pgd":
            return f"PGD-{STEPS} on {name}"
        inverse = self.subjects[source.model].inverse
        assert inverse is not None
        return f"Universal perturbation of {name} ({threat_text(inverse.threat)})"

    def answer(self, question: Question) -> Answer:
        """Move one image, and ask every model about it.

        Raises:
            UserError: a source, class, position or image that there is not, or a drawn image of another size.
        """
        self._check(question)
        source, y = self.sources[question.source], torch.tensor([question.label])
        x = self._image(question)[None]
        moved = self.move(source, x, y, question.position)
        return Answer(moved[0], self.probabilities(moved)[:, 0])

    def move(
        self, source: Source, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"], position: int
    ) -> Float[Tensor, "b c h w"]:
        """Move images away from their class (position above 0), or towards it (below 0).

        A universal perturbation z of length r is scaled: x - (epsilon / r) z_y, so that epsilon = -r is z itself.
        """
        epsilon = self.epsilon(position)
        if not epsilon:
            return x
        subject = self.subjects[source.model]
        if source.kind == "universal":
            assert subject.inverse is not None
            z = subject.inverse.upsampled()[y]
            return to_range(x - epsilon / float(subject.inverse.threat.epsilon) * z.to(x))
        ball = type(self.threat)(abs(epsilon))
        attack = PGD(threat=ball, step_size=abs(epsilon) / 4, steps=STEPS, start="none", descend=epsilon < 0)
        return attack(subject.model, x.to(self.device), y.to(self.device)).detach().cpu()

    def probabilities(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "m b k"]:
        """Return what each model says of images."""
        answers = []
        for subject in self.subjects:
            with torch.no_grad(), frozen(subject.model, batchnorm="eval"):
                shares = subject.model(x.to(self.device)).float().softmax(dim=1).cpu()
            if not bool(shares.isfinite().all()):
                raise UserError(f"{subject.name} answers with values that are not finite (NaN or infinity)")
            answers.append(shares)
        return torch.stack(answers)

    def _check(self, question: Question) -> None:
        reaches = {
            "source": (question.source, 0, len(self.sources) - 1),
            "label": (question.label, 0, self.images.num_classes - 1),
            "position": (question.position, -FARTHEST, FARTHEST),
            "image": (question.image or 0, 0, len(self.images) - 1),
        }
        for name, (value, least, most) in reaches.items():
            if not least <= value <= most:
                raise UserError(f"{name} must be from {least} to {most}, not {value}")

    def _image(self, question: Question) -> Tensor:
        if question.drawn is None:
            return as_float(self.images.images[question.image or 0]).cpu()
        shape = self.images.image_shape
        size = shape[0] * shape[1] * shape[2]
        if len(question.drawn) != size:
            raise UserError(f"a drawn image has {size} bytes, not {len(question.drawn)}")
        return as_float(torch.tensor(list(question.drawn), dtype=torch.uint8).view(shape))
