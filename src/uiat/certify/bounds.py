"""Interval bounds and backward linear bounds of every value in a ReLU network, over boxes of images.

Intervals: Gowal et al. (2018), arXiv:1810.12715, equation 6. Linear bounds: CROWN, Zhang et al. (2018),
arXiv:1811.00866, theorem 3.2, with the adaptive lower line of a ReLU that is not stable.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from uiat.certify.network import Network
from uiat.shapes import Float

MOST_COEFFICIENTS = 2**22  # of one value, at once: 32 MB


@dataclass(frozen=True)
class Interval:
    """Lower and upper bounds of a value of each image.

    Args:
        low: lower bounds (b, ...).
        high: upper bounds (b, ...).

    Example:
        >>> Interval(torch.tensor([0.0]), torch.tensor([1.0])).radius
        tensor([0.5000])
    """

    low: Tensor
    high: Tensor

    @property
    def centre(self) -> Tensor:
        """Middle of each interval."""
        return (self.high + self.low) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width of each interval."""
        return (self.high - self.low) / 2


def bound_values(network: Network, box: Interval, *, linear: bool) -> list[Interval]:
    """Bound every value of a network over a box of images.

    Args:
        network: the network.
        box: least and largest values of the pixels of each image, (b, c, h, w) in float64.
        linear: True to bound what ReLUs read by CROWN too; False for interval bounds alone.

    Returns:
        The bounds of each node.

    Example:
        >>> from torch import nn
        >>> from uiat.certify.network import trace_network
        >>> network = trace_network(nn.Sequential(nn.Flatten(), nn.ReLU()))
        >>> box = Interval(torch.tensor([[-1.0, 1.0]]).double(), torch.tensor([[0.5, 2.0]]).double())
        >>> bound_values(network, box, linear=False)[-1].low.tolist()
        [[0.0, 1.0]]
    """
    read_by_relu = {node.inputs[0] for node in network.nodes if node.kind == "relu"}
    known = [box]
    for place, node in enumerate(network.nodes[1:], start=1):
        inputs = [known[i] for i in node.inputs]
        if node.kind == "relu":
            found = Interval(inputs[0].low.relu(), inputs[0].high.relu())
        elif node.kind == "sum":
            found = Interval(inputs[0].low + inputs[1].low, inputs[0].high + inputs[1].high)
        else:
            assert node.apply is not None
            assert node.widen is not None
            centre, radius = node.apply(inputs[0].centre), node.widen(inputs[0].radius)
            found = Interval(centre - radius, centre + radius)
        known.append(found)
        if linear and place in read_by_relu:
            known[place] = _tighten(network, place, known)
    return known


def _tighten(network: Network, place: int, known: list[Interval]) -> Interval:
    """Return the bounds of a value that a ReLU reads, those that leave its sign open tightened by CROWN."""
    low, high = (bounds.flatten(1).clone() for bounds in (known[place].low, known[place].high))
    open_rows = ((low < 0) & (high > 0)).any(0).nonzero().flatten()
    shape, size = known[place].low.shape, low.shape[1]
    widest = max(bounds.low[0].numel() for bounds in known)
    for rows in open_rows.split(max(1, MOST_COEFFICIENTS // (2 * len(low) * widest))):
        unit = torch.zeros(len(rows), size, dtype=low.dtype, device=low.device)
        unit[torch.arange(len(rows)), rows] = 1
        weights = torch.cat([unit, -unit]).view(1, -1, *shape[1:]).expand(len(low), *[-1] * len(shape))
        least, negative_most = linear_lower_bounds(network, place, weights, known).chunk(2, dim=1)
        low[:, rows] = torch.maximum(low[:, rows], least)
        high[:, rows] = torch.minimum(high[:, rows], -negative_most)
    return Interval(low.view(shape), high.view(shape))


def linear_lower_bounds(
    network: Network, place: int, weights: Float[Tensor, "b m ..."], known: list[Interval]
) -> Float[Tensor, "b m"]:
    """Bound m weighted sums of a value from below, by linear functions of the image that lie below them (CROWN).

    Args:
        network: the network.
        place: position of the value.
        weights: weights of the sums, (b, m, ...) over the value's own shape (...).
        known: bounds of each node up to that value, the box of images first.

    Example:
        >>> from torch import nn
        >>> from uiat.certify.network import trace_network
        >>> network = trace_network(nn.Sequential(nn.Flatten(), nn.ReLU()))
        >>> box = Interval(torch.tensor([[-1.0]]).double(), torch.tensor([[3.0]]).double())
        >>> known = bound_values(network, box, linear=True)
        >>> linear_lower_bounds(network, 2, torch.tensor([[[1.0], [-1.0]]]).double(), known).tolist()
        [[-1.0, -3.0]]
    """
    constant = torch.zeros(weights.shape[:2], dtype=weights.dtype, device=weights.device)
    on = {place: weights}
    for i in range(place, 0, -1):
        if i not in on:
            continue
        node, weights = network.nodes[i], on.pop(i)
        source = node.inputs[0]
        if node.kind == "relu":
            weights, below = _replace_relu(weights, known[source])
            constant = constant + below
        elif node.kind == "affine":
            weights, below = _pull_back(node.apply, weights, known[source].low)
            constant = constant + below
        for j in node.inputs:
            on[j] = on[j] + weights if j in on else weights
    if 0 not in on:  # nothing depends on the image
        return constant
    box, on_pixels = known[0], on[0].flatten(2)
    centre, radius = (each.flatten(1).unsqueeze(2) for each in (box.centre, box.radius))
    return constant + (on_pixels @ centre - on_pixels.abs() @ radius).squeeze(2)


def _replace_relu(weights: Tensor, reads: Interval) -> tuple[Tensor, Tensor]:
    """Replace a ReLU by the line that keeps a sum below itself: return the weights of what it reads, and a constant.

    Between l < 0 < u, relu(z) <= u (z - l) / (u - l), and relu(z) >= z or 0, of which that is taken which leaves the
    smaller area (z where u > -l).
    """
    low, high = reads.low.unsqueeze(1), reads.high.unsqueeze(1)
    is_open = (low < 0) & (high > 0)
    upper = torch.where(is_open, high / (high - low).clamp_min(torch.finfo(low.dtype).tiny), (low >= 0).to(low))
    lower = torch.where(is_open, (high > -low).to(low), upper)
    offset = torch.where(is_open, -low * upper, torch.zeros_like(low))
    negative = weights.clamp_max(0)
    return weights.clamp_min(0) * lower + negative * upper, (negative * offset).flatten(2).sum(2)


def _pull_back(apply: object, weights: Tensor, example: Tensor) -> tuple[Tensor, Tensor]:
    """Return the weights of a sum of A z + b on z, which are A^T weights, and the sum's constant, weights . b.

    The transposed map is the gradient of the sum.
    """
    assert callable(apply)
    rows = weights.flatten(0, 1)
    with torch.enable_grad():
        zeros = torch.zeros(len(rows), *example.shape[1:], dtype=rows.dtype, device=rows.device).requires_grad_()
        at_zero = apply(zeros)
        (pulled,) = torch.autograd.grad(at_zero, zeros, rows)
    constant = (rows * at_zero.detach()).flatten(1).sum(1)
    return pulled.view(*weights.shape[:2], *example.shape[1:]), constant.view(weights.shape[:2])
