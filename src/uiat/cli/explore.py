"""`uiat explore`: a page on which images are moved against models and towards their class."""

import signal
import time
from pathlib import Path
from typing import Annotated

import typer

from uiat.cli import options
from uiat.cli.output import console
from uiat.explore import load_explorer, save_page, serving
from uiat.explore.page import TOOL
from uiat.system.atomic_files import check_page
from uiat.system.atomic_folder import probe
from uiat.threat import parse

Runs = Annotated[
    list[Path] | None, typer.Argument(metavar="RUN", help="Run folders, of the same data.", show_default=False)
]
Save = Annotated[
    Path | None,
    typer.Option(
        "--save", metavar="FILE.html", help="Write one HTML file that holds every answer and needs no server, and end."
    ),
]
Images = Annotated[
    int | None,
    typer.Option("--n", min=1, metavar="N", help="Test images to choose from. [default: 20, 10 in a saved page]"),
]
Port = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="Port on 127.0.0.1; 0 takes a free one.")]
Open = Annotated[bool, typer.Option("--open", help="Open the page in the browser too.")]
Ball = Annotated[
    str | None,
    typer.Option("--threat", metavar="NORM:RADIUS", help="Norm and radius. [default: what a run was trained for]"),
]
Device = Annotated[
    str | None, typer.Option(metavar="NAME", help="Device: auto, cpu, cuda, cuda:1, mps. [default: that of the run]")
]
OwnCode = Annotated[bool, typer.Option("--own-code", help="Let runs name Python code that builds their model.")]


def explore(
    runs: Runs = None,
    save: Save = None,
    n: Images = None,
    threat: Ball = None,
    port: Port = 0,
    open: Open = False,
    root: options.Root = None,
    device: Device = None,
    own_code: OwnCode = False,
) -> None:
    """Move images against models, in the browser.

    Example: uiat explore runs/digits-uiat runs/digits-pgd-at

    Choose an image, or draw a digit; drag epsilon from below 0 (inverse: PGD that lowers the loss) to above 0
    (adversarial); see the image, the perturbation and what every model says of it. The perturbation is PGD on one of
    the models, or the universal perturbation of any class, on any image. The page is served to this machine alone,
    until Ctrl-C, and asks nothing of the network.

    Example: uiat explore runs/digits-uiat runs/digits-pgd-at --save page.html
    """
    if save is not None:
        check_page(save, TOOL)
        probe(save)
    ball = None if threat is None else parse(threat)
    count = n or (20 if save is None else 10)
    explorer = load_explorer(runs or [], n=count, threat=ball, root=root, device=device, own_code=own_code)
    screen = console()
    if save is not None:
        save_page(explorer, save)
        screen.print(f"written: {save} ({save.stat().st_size / 1000:,.0f} kB)", soft_wrap=True)
        return
    with serving(explorer, port=port) as site:
        screen.print(f"open {site.address}\nCtrl-C ends it", soft_wrap=True)
        if open:
            import webbrowser

            webbrowser.open(site.address)
        _wait()


def _wait() -> None:
    """Wait for Ctrl-C, which is how a page is closed and no failure."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would interrupt the end
