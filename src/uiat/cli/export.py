"""The command `uiat export`."""

from pathlib import Path
from typing import Annotated, cast

import typer

from uiat.cli.options import OwnCode, Root, Which
from uiat.cli.output import console
from uiat.errors import UserError
from uiat.experiments.export import FORMATS, Exported, export_run
from uiat.runs import checkpoint

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.", show_default=False)]
To = Annotated[str, typer.Option("--to", metavar="FORMAT", help=f"{', '.join(FORMATS)}.", show_default=False)]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="The new folder. [default: RUN/export-FORMAT]")]
Vnnlib = Annotated[
    int, typer.Option(metavar="N", min=0, help="With onnx: robustness properties of the first N test images.")
]
Push = Annotated[
    str | None, typer.Option(metavar="REPO", help="With hf: upload the folder to this repository of the Hub.")
]


def export(
    run: RunFolder,
    to: To,
    out: Out = None,
    which: Which = "best",
    root: Root = None,
    own_code: OwnCode = False,
    vnnlib: Vnnlib = 0,
    push: Push = None,
) -> None:
    """Take the model of a run elsewhere.

    Example: uiat export runs/digits-uiat --to pytorch

    Example: uiat export runs/digits-uiat --to onnx --vnnlib 20

    pytorch: a folder with weights and a module file that plain PyTorch loads (of your own code and of timm models a
    torch.export program). onnx: a file for onnxruntime. torch-export: a program. hf: the layout of the Hugging Face
    Hub, with a model card of the training, the attacks, the accuracies with intervals, the verdict and the limits.
    Each is read back as a stranger would, and refused unless its logits are the model's.
    """
    if push is not None and to != "hf":
        raise UserError(f"--push uploads the layout of the Hub: export with --to hf, not {to}")
    done = export_run(
        run, to, out=out, which=cast(checkpoint.Which, which), root=root, own_code=own_code, vnnlib=vnnlib
    )
    _show(done)
    if push is not None:
        console().print(f"uploaded: {_upload(done.folder, push)}", soft_wrap=True)


def _show(done: Exported) -> None:
    out = console()
    for name in done.files if done.properties == 0 else [f for f in done.files if not f.startswith("vnnlib")]:
        out.print(f"written: {done.folder / name}", soft_wrap=True)
    if done.properties:
        out.print(f"written: {done.properties} properties in {done.folder / 'vnnlib'}", soft_wrap=True)
    out.print(
        f"read back: the logits of {done.images} test images are the model's ({done.difference:.0e} apart at most)",
        soft_wrap=True,
    )


def _upload(folder: Path, repo: str) -> str:
    try:
        from huggingface_hub import HfApi

        api = HfApi()
        api.create_repo(repo, exist_ok=True)
        return str(api.upload_folder(folder_path=folder, repo_id=repo))
    except Exception as error:  # without a network it is one of the Hub's HTTP client, which is no OSError
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{folder} is written, but could not be uploaded to {repo}: {reason}") from None
