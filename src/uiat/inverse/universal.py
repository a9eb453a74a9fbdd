"""Class-universal inverse perturbations: apply, save and load them, and the class means that update them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uiat import losses
from uiat.checks import Count, check_labels, checked, checked_fields
from uiat.errors import UserError
from uiat.formatting import Summary, parse_threat_record, radius_text, threat_record, threat_text
from uiat.inverse.grid import image_shape, norm_scale, sum_cells, upsample
from uiat.shapes import Bool, Float, Int
from uiat.system.distributed import current_rank
from uiat.system.manifest import check_file, write_recorded_tensors
from uiat.system.tensor_files import read_tensors
from uiat.threat import Threat, to_range

INVERSE_FILE = "inverse.safetensors"


@checked_fields
@dataclass(frozen=True)
class UniversalPerturbation:
    """Universal inverse perturbations (UIAT), one a class, z in R^(K x C x H x W): `z(x, y)` is clip(x + z_y, 0, 1).

    Args:
        z: the perturbations, (K, C, H, W), in units of the image range [0, 1]; on a grid, (K, C, H / cell, W / cell).
        threat: the ball that each of them lies in, at the resolution of the images.
        cell: pixels of an image along the side of one entry of z; 1 where z has the images' resolution.

    Example:
        >>> from uiat import Linf
        >>> z = UniversalPerturbation(torch.zeros(10, 1, 8, 8), Linf("4/255"))
        >>> z(torch.rand(2, 1, 8, 8), torch.tensor([3, 7])).shape
        torch.Size([2, 1, 8, 8])
    """

    z: Float[Tensor, "k c h w"]
    threat: Threat
    cell: Count = 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that the perturbations are for."""
        return image_shape(self.z, self.cell)

    def upsampled(self) -> Float[Tensor, "k c H W"]:
        """Return the perturbations at the resolution of the images, in float32.

        Example:
            >>> from uiat import Linf
            >>> UniversalPerturbation(torch.zeros(10, 1, 4, 4).half(), Linf("4/255"), cell=2).upsampled().shape
            torch.Size([10, 1, 8, 8])
        """
        return upsample(self.z.float(), self.cell)

    @checked
    def __call__(self, x: Float[Tensor, "b c h w"], y: Int[Tensor, "b"]) -> Float[Tensor, "b c h w"]:
        """Add to each image the perturbation of its class, and clip it to [0, 1].

        Raises:
            UserError: the images have another shape than the perturbations, or there is no perturbation for a label.
        """
        if x.shape[1:] != self.image_shape:
            raise UserError(f"perturbations of shape {self.image_shape} do not fit images {tuple(x.shape[1:])}")
        check_labels(y, num_classes=len(self.z))
        return apply_universal(x, y, self.z, self.cell)

    def __repr__(self) -> str:
        return self.summary().text

    def _repr_html_(self) -> str:
        return self.summary().html

    def summary(self) -> Summary:
        """Return what `print` shows, a line: the number of perturbations, their shape, ball and largest length.

        Example:
            >>> from uiat import Linf
            >>> UniversalPerturbation(torch.full((10, 1, 8, 8), 1 / 255), Linf("4/255"))
            universal inverse perturbations of 10 classes, (1, 8, 8) each, within Linf 4/255; the largest is 1/255 long
        """
        scale = norm_scale(self.threat.norm, self.cell)
        longest = scale * float(self.threat.length(self.z.float()).max()) if len(self.z) else 0.0
        within = f"within {threat_text(self.threat)}; the largest is {radius_text(self.threat.norm, longest)} long"
        grid = "" if self.cell == 1 else f" on a grid {tuple(self.z.shape[1:])}"
        kept = "" if self.z.dtype == torch.float32 else f" in {str(self.z.dtype).removeprefix('torch.')}"
        shape = f"{self.image_shape} each{grid}{kept}"
        return Summary(f"universal inverse perturbations of {len(self.z)} classes, {shape}, {within}")

    def save(self, path: str | Path) -> None:
        """Write the perturbations to a safetensors file, atomically."""
        facts = {"kind": "uiat.inverse", "threat": threat_record(self.threat, exact=True), "cell": self.cell}
        write_recorded_tensors(Path(path), {"z": self.z}, facts)


@checked
def load_inverse(run: str | Path) -> UniversalPerturbation:
    """Load the universal inverse perturbations of a run folder, or of a file that `UniversalPerturbation.save` wrote.

    Raises:
        UserError: the run has none (its method does not use them), or the file is damaged or of another kind.

    Example:
        >>> load_inverse("missing-run")
        Traceback (most recent call last):
        uiat.errors.UserError: no such file: missing-run
    """
    path, tensors, meta = read_of_run(run, INVERSE_FILE, what="universal perturbations", pronoun="them")
    z = tensors.get("z")
    if meta.get("kind") != "uiat.inverse" or z is None or z.ndim != 4 or not isinstance(meta.get("threat"), str):
        raise UserError(f"{path} is not a file of universal inverse perturbations")
    if not z.is_floating_point() or not bool(torch.isfinite(z).all()):
        raise UserError(f"{path} is damaged: it holds perturbations that are not finite")
    cell = meta.get("cell", 1)  # files of version 0.1 do not say it
    if not isinstance(cell, int) or isinstance(cell, bool) or cell < 1:
        raise UserError(f"{path} is damaged: its cell is {cell!r}")
    return UniversalPerturbation(z, parse_threat_record(meta["threat"], path), cell)


def read_of_run(
    run: str | Path, name: str, *, what: str, pronoun: str
) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """Read what a method may have left in a run folder: tensors and facts, checked by the folder's sums.

    Args:
        run: the folder, or a file of the same kind elsewhere.
        name: the file in the folder.
        what: what it holds, for messages.
        pronoun: "one" or "them", for what it holds.

    Returns:
        The path of the file, its tensors and its facts.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    path = Path(run)
    if path.is_dir():
        path = path / name
        if not path.exists():
            check_file(path)  # one that is lost is not one that never was
            raise UserError(f"{path.parent} has no {what} ({name}): its method does not use {pronoun}, or not yet")
    tensors, meta = read_tensors(path)
    check_file(path)
    return path, tensors, meta


def apply_universal(x: Tensor, y: Tensor, z: Tensor, cell: int = 1) -> Float[Tensor, "b c h w"]:
    """Compute x_inv = clip(x + z_y, 0, 1) (UIAT), for images (B, C, H, W), labels (B,) and z (K, C, H, W).

    Of a z on a grid, (K, C, H / cell, W / cell), the rows of the batch alone are upsampled.

    Example:
        >>> z = torch.stack([torch.zeros(1, 1, 1), torch.ones(1, 1, 1)])
        >>> apply_universal(torch.zeros(2, 1, 1, 1), torch.tensor([0, 1]), z).flatten().tolist()
        [0.0, 1.0]
    """
    return to_range(x + upsample(z[y.to(z.device)].to(x), cell))


def class_means(
    per_example: Float[Tensor, "b ..."], y: Int[Tensor, "b"], num_classes: int
) -> tuple[Float[Tensor, "k ..."], Bool[Tensor, "k"]]:
    """Average values over the batch's examples of each class, with zeros for a class that is not in the batch.

    It is one matrix product: no loop over classes, and deterministic on every device. The batch is that of all
    processes.

    Returns:
        The means (K, ...), and a mask (K,) of the classes that are in the batch.

    Example:
        >>> means, present = class_means(torch.tensor([[1.0], [3.0]]), torch.tensor([1, 1]), 2)
        >>> means.tolist(), present.tolist()
        ([[0.0], [2.0]], [False, True])
    """
    one_hot = torch.nn.functional.one_hot(y, num_classes).to(per_example.dtype)
    counts = current_rank().total(one_hot.sum(dim=0))
    with losses.full_precision_passes(y.device):  # in bf16 the rows would not sum to 1
        sums = (one_hot / counts.clamp_min(1)).t() @ per_example.flatten(1)
    means = current_rank().total(sums)
    return means.view(num_classes, *per_example.shape[1:]), counts > 0


def class_gradients(
    gradient: Float[Tensor, "b c H W"], y: Int[Tensor, "b"], num_classes: int, cell: int
) -> tuple[Float[Tensor, "r c h w"], Int[Tensor, "r"], Bool[Tensor, "r"]]:
    """Average the gradients of each class over the batch of all processes, as gradients by z on its grid.

    Where there are more classes than images, only classes of the batch get a row, one for each image, so that memory
    and time go with the batch and not with K: at K = 1000 and 224 pixels one tensor of all classes has 600 MB. Images
    of the same class get the same row to the bit, so writing it twice does no harm. Which classes are there is never
    asked of the device.

    Returns:
        The means (R, C, h, w), the class of each row (R,), and a mask (R,) of the rows whose class is in the batch.

    Example:
        >>> means, rows, _ = class_gradients(torch.tensor([1.0, 3.0]).view(2, 1, 1, 1), torch.tensor([7, 7]), 9, 1)
        >>> means.flatten().tolist(), rows.tolist()
        ([2.0, 2.0], [7, 7])
    """
    per_example, rank = sum_cells(gradient, cell), current_rank()
    if num_classes <= rank.size * len(y):
        means, present = class_means(per_example, y, num_classes)
        return means, torch.arange(num_classes, device=y.device), present
    rows = rank.concatenate(y)
    same = rows[:, None] == rows
    weights = (rows[:, None] == y) / same.sum(dim=1, keepdim=True)
    means = rank.total(weights.to(per_example.dtype) @ per_example.flatten(1))
    first = same.int().argmax(dim=1)  # sums of two rows alike may be rounded differently: the first one counts for both
    return means[first].view(-1, *per_example.shape[1:]), rows, torch.ones_like(rows, dtype=torch.bool)
