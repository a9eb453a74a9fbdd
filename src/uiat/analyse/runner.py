"""Every study by its name, and the one function that runs them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from uiat import evaluation
from uiat.analyse.result import Result, check_free, write
from uiat.analyse.studies.ablation import ABLATION
from uiat.analyse.studies.alignment import ALIGNMENT
from uiat.analyse.studies.attention import ATTENTION
from uiat.analyse.studies.confidence_gap import CONFIDENCE_GAP
from uiat.analyse.studies.cost import COST
from uiat.analyse.studies.inverse_gallery import GALLERY
from uiat.analyse.studies.landscape import LANDSCAPE
from uiat.analyse.studies.misaligned import MISALIGNED
from uiat.analyse.studies.one_off import ONE_OFF
from uiat.analyse.studies.overfitting import OVERFITTING
from uiat.analyse.studies.strength import STRENGTH
from uiat.analyse.study import Context, Data, Study, StudyOptions, open_runs
from uiat.errors import UserError, nearest
from uiat.formatting import threat_option, threat_text
from uiat.system.environment import describe_environment

_ALL = (
    *(CONFIDENCE_GAP, STRENGTH, OVERFITTING, ONE_OFF, ABLATION, GALLERY),
    *(MISALIGNED, LANDSCAPE, ALIGNMENT, ATTENTION, COST),
)
STUDIES: dict[str, Study] = {study.name: study for study in _ALL}


def run(
    study: str,
    runs: Sequence[str | Path] = (),
    *,
    out: str | Path | None = None,
    n: int | None = None,
    seed: int = 0,
    told: Callable[[str], None] | None = None,
    **options: Any,
) -> Result:
    """Run one of the paper's studies on run folders.

    Args:
        study: a name of `STUDIES`.
        runs: run folders; none is needed for an ablation that trains its own.
        out: folder for STUDY.json, .svg, .png and .md; by default nothing is written.
        n: images, the first of the test set (of the held-out images, where something is to be chosen).
        seed: of random starts and directions.
        told: called with a line whenever a part is done.
        options: the other fields of `StudyOptions`: threat, attack, epsilons, which, root, device, own_code, and of the
            ablation recipe, seeds, settings, train_dir.

    Raises:
        UserError: an unknown study, a run that lacks what the study needs, or files of other inputs in the way.

    Example:
        >>> run("strenght", [])
        Traceback (most recent call last):
        uiat.errors.UserError: unknown study 'strenght'; did you mean 'strength'? known: ...
    """
    if study not in STUDIES:
        raise nearest("study", study, STUDIES)
    asked, chosen = _asked(study, runs, StudyOptions(n=n, seed=seed, **options)), STUDIES[study]
    folder = None if out is None else Path(out)
    inputs = _inputs(runs, asked)
    if folder is not None:
        check_free(folder, study, inputs)
    context = Context(open_runs(runs), asked, told or (lambda line: None), folder)
    if asked.recipe is None:  # an attack or a threat model that cannot be is refused before anything is loaded
        context.settings() if chosen.examples else evaluation.stages(asked.attack, threat=context.ball)
    found = chosen.measure(context)
    data = _record(chosen, context, inputs) | found
    paragraph = " ".join([*context.notes, *chosen.sentences(data), _conditions(data)])
    table = [] if chosen.table is None else chosen.table(data)
    result = Result(study, data | {"paragraph": paragraph}, paragraph, table)
    return result if folder is None else replace(result, files=write(folder, chosen, result))


def _asked(study: str, runs: Sequence[str | Path], asked: StudyOptions) -> StudyOptions:
    if asked.recipe is not None and study != "ablation":
        raise UserError(f"only the study ablation trains a recipe, not {study}: give it RUN folders")
    if asked.recipe is not None and runs:
        raise UserError("an ablation either compares the RUN folders given or trains a recipe: leave one out")
    if asked.recipe is None and not runs:
        more = ", or --train RECIPE" if study == "ablation" else ""
        raise UserError(f"the study {study} needs one or more RUN folders{more}")
    if asked.recipe is None and (asked.settings or asked.train_dir):
        raise UserError("--set and --runs are for ablation --train RECIPE; runs that are given are as they are")
    if asked.n is not None and asked.n < 1:
        raise UserError(f"n must be at least 1, but is {asked.n}")
    return asked


def _inputs(runs: Sequence[str | Path], asked: StudyOptions) -> Data:
    """What decides the numbers, to tell a second time from another study of the same name."""
    kept = ("n", "seed", "threat", "attack", "epsilons", "which", "recipe")
    found: Data = {"runs": [str(path) for path in runs]} | {name: getattr(asked, name) for name in kept}
    if asked.recipe is not None:
        found |= {"seeds": list(asked.seeds), "settings": [list(pair) for pair in asked.settings]}
    return found


def _record(study: Study, context: Context, inputs: Data) -> Data:
    """What every result says of itself."""
    return {
        "study": study.name,
        "about": study.about,
        "inputs": inputs,
        "n": dict(context.sizes),
        "seed": context.asked.seed,
        "threat": threat_option(context.ball),
        "attack": context.asked.attack,
        "data": sorted({s.run.data.name for s in context.subjects}),
        "notes": context.notes,
        "environment": describe_environment(),
    }


def _conditions(data: Data) -> str:
    """The small print: on what, how many, under what."""
    sizes = ", ".join(f"{count} {split} images" for split, count in data["n"].items())
    where = f"{' and '.join(data['data'])}: {sizes}" if sizes else " and ".join(data["data"])
    return f"({where}; attack {data['attack']} under {threat_text(data['threat'])}; seed {data['seed']}.)"
