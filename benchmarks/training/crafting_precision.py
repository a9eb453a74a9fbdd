"""How strong a training attack stays when its passes are computed in fewer bits: bf16, and FP8 as emulated here.

    python benchmarks/training/crafting_precision.py RUN RUN --n 1000 --data.root DATA

PGD-10 crafts with each form of a trained network, and the network itself, in fp32, judges what was crafted. FP8 rounds
the inputs and the weights of each convolution and linear layer to e4m3 and the gradients between them to e5m2, each
tensor scaled by its largest entry, as cards with FP8 units would; the sums are in fp32.
"""

import argparse
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

import uiat
from uiat.data import as_float, open_data, stratified_subset
from uiat.speed.inner_model import InnerModel

ATTACK = uiat.PGD(threat=uiat.Linf("8/255"), step_size="2/255", steps=10)
FORWARD, BACKWARD = torch.float8_e4m3fn, torch.float8_e5m2


def rounded(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Round a tensor to eight bits, with one scale."""
    scale = x.abs().max().clamp_min(1e-30) / torch.finfo(dtype).max
    return (x / scale).to(dtype).to(x.dtype) * scale


class Rounding(torch.autograd.Function):
    """Rounds forward, and the gradient backward."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        """Round to e4m3."""
        return rounded(x, FORWARD)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        """Round to e5m2."""
        return rounded(gradient, BACKWARD)


def in_eight_bits(model: nn.Module) -> nn.Module:
    """Round weights once, and inputs and gradients at each layer."""
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.weight = nn.Parameter(rounded(layer.weight.detach(), FORWARD), requires_grad=False)
            layer.register_forward_pre_hook(lambda module, inputs: Rounding.apply(*inputs))
            layer.register_forward_hook(lambda module, inputs, output: Behind.apply(output))
    return model


class Behind(torch.autograd.Function):
    """Rounds the gradient that a layer receives, and nothing forward."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        """Leave everything as it is."""
        return x.clone()  # a ReLU behind it may overwrite it

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        """Round to e5m2."""
        return rounded(gradient, BACKWARD)


def forms(model: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[nn.Module, AbstractContextManager[object]]]:
    """The network in each precision, with the context of its passes."""

    def bf16() -> AbstractContextManager[object]:
        return torch.autocast("cpu", torch.bfloat16)

    return {
        "fp32": (model, nullcontext()),
        "fp32, folded": (InnerModel(model, shape)(), nullcontext()),
        "bf16": (model, bf16()),
        "bf16, folded": (InnerModel(model, shape, half=True)(), bf16()),
        "FP8, folded (emulated)": (in_eight_bits(InnerModel(model, shape, tensor_cores=False)()), nullcontext()),
    }


def robust(model: nn.Module, form: nn.Module, context: AbstractContextManager[object], x: Tensor, y: Tensor) -> Tensor:
    """True for each image on whose adversarial example, crafted with a form of it, the network in fp32 is right."""
    torch.manual_seed(0)  # the same random starts for each form
    found = []
    for images, labels in zip(x.split(250), y.split(250), strict=True):
        with context:
            x_adv = ATTACK.perturb(form, images, labels)
        with torch.no_grad():
            found.append(model(x_adv).argmax(dim=1) == labels)
    return torch.cat(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--data.root", dest="root", default="data")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    test = stratified_subset(open_data("cifar10", "test", root=arguments.root), arguments.n, seed=0)
    x, y = as_float(test.images), test.labels
    print("| run | crafted in | robust, % | less fp32 | images with another verdict |\n" + "|---" * 5 + "|")
    for run in arguments.runs:
        model, first = uiat.load(run).eval(), None
        for name, (form, context) in forms(model, tuple(x.shape[1:])).items():
            verdicts = robust(model, form, context, x, y)
            first = verdicts if first is None else first
            share, less = 100 * verdicts.float().mean(), 100 * (verdicts.float().mean() - first.float().mean())
            print(f"| {run} | {name} | {share:.1f} | {less:+.1f} | {int((verdicts != first).sum())} |", flush=True)


if __name__ == "__main__":
    main()
