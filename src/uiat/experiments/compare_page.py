"""A page of a comparison: its tables, and pictures of the images that one model alone has right."""

from pathlib import Path

from uiat.data import ImageSet, as_float
from uiat.errors import UserError
from uiat.experiments.compare import Comparison
from uiat.report.images import data_uri
from uiat.report.page import render
from uiat.report.section import Cell, Column, Picture, Section, Table
from uiat.runs.settings import read_evaluated
from uiat.system.atomic_files import check_page, write_text
from uiat.training.test_set import open_lasting_test_set

TOOL = "uiat compare"


def write_page(
    found: Comparison, folder: Path, out: Path, *, shown: int = 60, root: str | None = None, own_code: bool = False
) -> None:
    """Write a comparison as one HTML file; an earlier one is replaced, any other file is refused.

    Args:
        found: the comparison.
        folder: the run folder whose settings name the images.
        out: the file.
        shown: pictures, at most; half of them of each side where there are enough.
        root: folder of the data sets; that of the run by default.
        own_code: let the run name code that opens its images.

    Raises:
        UserError: a file in the way, or images that are not there, or that the set does not have.
    """
    check_page(out, TOOL)
    run, _ = read_evaluated(folder)
    if run.data.name != found.data:
        raise UserError(f"--save shows images of the run's own data, {run.data.name}, and these are of {found.data}")
    data = open_lasting_test_set(run, folder, root=root, own_code=own_code, download=False)
    places = found.differing
    if (last := max((found.index[i] for i in places), default=0)) >= len(data):
        raise UserError(f"{data.name} has {len(data)} test images, and an evaluation names image {last}")
    sides = [[i for i in places if bool(found.broken[i][1]) is is_a] for is_a in (True, False)]
    half = max(shown // 2, shown - min(map(len, sides)))
    parts = [
        _side(found, side[:half], len(side), data.subset([found.index[i] for i in side[:half]]).decode(), name)
        for side, name in zip(sides, ("A", "B"), strict=True)
        if side
    ]
    page = {
        "mark": f"written by {TOOL}",
        "title": "Two models, image by image",
        "lead": f"A: {found.a}. B: {found.b}. {found.n:,} test images of {found.data}, threat model {found.threat}.",
        "sections": [_tables(found), *parts],
        "made_by": "p: McNemar's exact test, two-sided; it counts the images that one model alone has right",
    }
    write_text(out, render("report.html.j2", page))


def _tables(found: Comparison) -> Section:
    names = ("A, %", "B, %", "both right", "A alone", "B alone", "neither", "p")
    rows = []
    for each in found.tables:
        shares = [100 * (each.both + alone) / found.n for alone in (each.only_a, each.only_b)]
        counts = [each.both, each.only_a, each.only_b, each.neither]
        rows.append(
            [
                Cell(each.name),
                *(Cell(f"{share:.2f}", share) for share in shares),
                *(Cell(f"{count:,}", float(count)) for count in counts),
                Cell(f"{each.p:.2g}", each.p),
            ]
        )
    table = Table(
        [Column("right after"), *(Column(name, number=True) for name in names)], rows, "images that are right"
    )
    return Section("Counts", anchor="counts", tables=[table], note=" ".join(found.notes))


def _side(found: Comparison, places: list[int], count: int, images: ImageSet, winner: str) -> Section:
    pictures = []
    for i, image, label in zip(places, as_float(images.images), images.labels.tolist(), strict=True):
        name, place = images.classes[label], f"test image {found.index[i]}"
        breaker = (found.broken[i][0] or found.broken[i][1]).replace("-", "\u2011")  # no line breaks there
        below = f"{found.index[i]}: {name}, {breaker}"
        pictures.append(Picture(data_uri(image), f"{place}, of {name}", place, below=below))
    loser = "B" if winner == "A" else "A"
    more = f" The first {len(places)} of them are shown." if len(places) < count else ""
    about = f"{count:,} images that {winner} withstands. Place in the test set, class, and what breaks {loser}.{more}"
    return Section(f"{winner} alone is right", anchor=f"only-{winner.lower()}", intro=about, pictures=pictures)
