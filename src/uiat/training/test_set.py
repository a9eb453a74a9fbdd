"""Open the test images of a run: those that its settings name, held against what it was trained on."""

from pathlib import Path

from uiat.config.schema import Run, is_own_data
from uiat.data import Folder, ImageSet, Stream, has_test_part
from uiat.errors import UserError
from uiat.runs.own_files import AllowOwnCode, check_own_code
from uiat.training.setup import open_split


def open_test_set(
    run: Run, folder: Path, *, root: str | None = None, own_code: AllowOwnCode = False, download: bool = True
) -> ImageSet | Folder | Stream:
    """Open the test images that a run folder names.

    Args:
        run: the settings of the run.
        folder: its folder.
        root: folder of the data sets; that of the run by default.
        own_code: True to let the folder name code of the user's own that opens them, which runs it; "changed" to run it
            as it is now.
        download: False to download nothing.

    Raises:
        UserError: as for `uiat.data.open_data`; code that is not allowed or has changed; a set of one part, which the
            run was trained on.

    Example:
        >>> len(open_test_set(Run(), Path("missing")))
        539
    """
    if own_code and is_own_data(run):
        check_own_code(folder, run.data.name, allowed=own_code)
    if not has_test_part(run.data.name):
        raise UserError(
            f"{run.data.name} has one part, which {folder} was trained on: name other images to test it on, --data NAME"
        )
    return open_split(run.data, "test", root=root, own_code=bool(own_code), download=download)


def open_lasting_test_set(
    run: Run, folder: Path, *, root: str | None = None, own_code: AllowOwnCode = False, download: bool = True
) -> ImageSet | Folder:
    """Open the test images of a run as `open_test_set` does, for whoever goes through them more than once.

    Raises:
        UserError: as for `open_test_set`; images that pass by once.

    Example:
        >>> len(open_lasting_test_set(Run(), Path("missing")))
        539
    """
    data = open_test_set(run, folder, root=root, own_code=own_code, download=download)
    if isinstance(data, Stream):
        raise UserError(
            f"{data.name} yields its images once, and more passes are needed: return tensors, an ImageSet or a dataset"
        )
    return data
