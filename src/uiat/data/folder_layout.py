"""Find the parts and classes of an image folder as its user means them; refuse what could be meant otherwise."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uiat.data.notices import warn_once
from uiat.errors import UserError
from uiat.system.home import expand_home, seen_from

# Names of the parts, in any case; of each kind the first that is there is taken.
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # those of torchvision
# Made by file systems and programs, beside all that begins with a dot.
_NOT_DATA = {"__macosx", "@eadir", "__pycache__", "lost+found", "#recycle", "$recycle.bin", "system volume information"}


@dataclass(frozen=True)
class Listing:
    """The images of one part of an image folder.

    Args:
        classes: the name of each class.
        files: the path and the label of each image, class by class.
    """

    classes: tuple[str, ...]
    files: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class _Class:
    """A class folder as it was found: the folders directly in it, its images, and how many lie directly in it."""

    folders: tuple[str, ...]
    files: tuple[str, ...]
    direct: int


def open_base(path: str | os.PathLike[str], name: str) -> Path:
    """Return the folder that a user named, if it is one.

    Raises:
        UserError: it does not exist, is a file, or has a name that no file system takes.
    """
    text = str(expand_home(path))
    name = name if len(name) < 300 else f"{name[:100]}... ({len(text)} characters)"
    if os.path.isdir(text):  # other than Path's method it takes names that are too long
        return Path(text)
    if os.path.isfile(text):
        raise UserError(f"{name}: it is a file; give the folder of images (unpack an archive first)")
    raise UserError(f"{name}: there is no such folder; check the path{seen_from(path)}")


def list_part(base: Path, split: str, name: str) -> Listing:
    """List the images of the train or the test part of an image folder.

    Raises:
        UserError: the part or the images of a class are missing; what the classes are is doubtful.
    """
    with _named_faults(name):
        train, test = _find(base, TRAIN, name), _find(base, TEST, name)
        where = _choose_part(base, split, name, train=train, test=test)
        names = _class_names(where, name)
        if train is not None and where != train:
            _check_same_classes(names, _class_names(train, name), train, where, name)
        found = {each: _walk_class(where / each, name) for each in names}
        _check_level(where, found, name)
    _check_filled(where, found, name)
    files = ((path, label) for label, each in enumerate(names) for path in found[each].files)
    return Listing(tuple(names), tuple(files))


def is_hidden(name: str) -> bool:
    """Return True for a file or folder that no user put there as data.

    Example:
        >>> is_hidden(".ipynb_checkpoints"), is_hidden("__MACOSX"), is_hidden("cat")
        (True, True, False)
    """
    return name.startswith(".") or name.lower() in _NOT_DATA


def sort_classes(names: list[str], name: str) -> list[str]:
    """Sort the names of classes: as numbers if all of them are integers, as words otherwise.

    Args:
        names: the names of the class folders.
        name: what the set is called in messages.

    Example:
        >>> sort_classes(["10", "9", "1"], "example"), sort_classes(["b", "c", "a"], "example")
        (['1', '9', '10'], ['a', 'b', 'c'])
    """
    words = sorted(names)
    if words and all(re.fullmatch(r"[+-]?[0-9]+", each) for each in words):
        numbers = sorted(words, key=lambda each: (int(each), each))
        if numbers != words:
            warn_once(
                f"{name}: the class folders are integers, so they are taken in numeric order ({_some(numbers)}) and "
                f"not as words ({_some(words)}); a model that was trained in the other order has other labels"
            )
        return numbers
    if sorted(words, key=_natural) != words:
        warn_once(
            f"{name}: the class folders are sorted as words ({_some(words)}), not by the numbers in them; pad those "
            "with zeros if another order is meant"
        )
    return words


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"([0-9]+)", name)]


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _choose_part(base: Path, split: str, name: str, *, train: Path | None, test: Path | None) -> Path:
    """Return the folder of the part that is asked for; where there are no parts, the class folders lie in the base."""
    if train is None and test is None:
        if split == "train":
            return base
        above = base.resolve().parent
        parent = _is_part(base) and _find(above, TEST, name)
        meant = f"; did you mean imagefolder:{above}?" if parent else ""
        raise UserError(
            f"{name}: the class folders lie directly in it, so it has a train part only; "
            f"move them to {base}/train and add {base}/{split}{meant}"
        )
    beside = [each for each in _folders(base) if each.lower() not in (*TRAIN, *TEST)]
    only = train or test
    if (train is None or test is None) and only is not None and only.name != "train" and beside:
        raise UserError(
            f"{name}: {only.name} holds folders as a part of the set would, but {_some(beside)} beside it may be "
            f"classes; did you mean imagefolder:{only}? Otherwise move the classes to {base}/train"
        )
    where = train if split == "train" else test
    if where is None and split == "train":
        raise UserError(f"{name}: it has {test} but no train part; add {base}/train")
    if where is None:
        raise UserError(f"{name}: neither {base}/test nor {base}/val exists; add one of them")
    if where.name not in ("train", "test", "val"):
        warn_once(f"{name}: {where} is taken as the {split} part")
    if train is not None and test is not None and train.samefile(test):
        warn_once(f"{name}: the train and the test part are one folder, {train.resolve()}")
    return where


def _find(base: Path, words: tuple[str, ...], name: str) -> Path | None:
    """Return the folder of a part: named as documented, or nearly so and holding folders, which a class rarely does."""
    folders = _folders(base)
    if "train" in folders and words == TRAIN:
        return base / "train"
    exact = [each for each in ("test", "val") if each in folders and "train" in folders and words == TEST]
    near = [each for each in folders if each.lower() in words and (each in exact or _folders(base / each))]
    near.sort(key=lambda each: (words.index(each.lower()), each not in exact))
    # A test part and a validation part may both be there; two of one kind may not.
    alike = near if words == TRAIN else [each for each in near if each.lower() == near[0].lower()]
    if len(alike) > 1 and alike[0] not in exact:
        raise UserError(f"{name}: {' and '.join(alike)} may both be its {words[0]} part; keep one of them")
    return base / near[0] if near else None


def _is_part(folder: Path) -> bool:
    return folder.name.lower() in (*TRAIN, *TEST)


def _folders(base: Path) -> list[str]:
    """Return the names of the folders in a folder, without hidden ones."""
    with os.scandir(base) as entries:
        return sorted(entry.name for entry in entries if not is_hidden(entry.name) and entry.is_dir())


def _class_names(where: Path, name: str) -> list[str]:
    with os.scandir(where) as entries:
        listed = sorted((entry.name, entry.is_dir()) for entry in entries)
    passed = [each for each, folder in listed if folder and is_hidden(each)]
    if passed:
        warn_once(f"{name}: passed over {_some(passed)} in {where}, hidden folders that are no classes")
    loose = [each for each, folder in listed if not folder and _is_image(each)]
    names = [each for each, folder in listed if folder and not is_hidden(each)]
    if not names:
        beside = f" ({len(loose)} images lie directly in it)" if loose else ""
        raise UserError(f"{name}: {where} must hold one folder of images a class; there is none{beside}")
    if loose:
        warn_once(f"{name}: {len(loose)} images directly in {where} are passed over: they belong to no class")
    _check_distinct(where, names, name)
    return sort_classes(names, name)


def _check_distinct(where: Path, names: list[str], name: str) -> None:
    """Refuse links that make one folder two classes, or a class of a folder that holds it."""
    seen: dict[str, str] = {}
    for each in names:
        path = where / each
        if path.is_symlink():
            _check_link(str(path), str(where), name)
        real = os.path.realpath(path)
        if real in seen:
            raise UserError(f"{name}: the classes {seen[real]} and {each} are one folder, {real}; remove the link")
        seen[real] = each


def _check_link(path: str, top: str, name: str) -> None:
    """Refuse a link that leads to a folder in which it lies: every image would be found again and again."""
    real, above = os.path.realpath(path), os.path.dirname(path)
    holders = {os.path.realpath(above)}
    while above != top and len(above) > len(top):
        above = os.path.dirname(above)
        holders.add(os.path.realpath(above))
    if any(holder == real or holder.startswith(real.rstrip(os.sep) + os.sep) for holder in holders):
        raise UserError(f"{name}: {path} is a link to {real}, a folder that holds it; remove the link")


def _walk_class(folder: Path, name: str) -> _Class:
    """Return the images in a class folder and the folders in it, sorted as torchvision's ImageFolder does."""
    found: list[tuple[str, list[str]]] = []
    top = _Class((), (), 0)
    for root, folders, files in os.walk(folder, followlinks=True, onerror=_raise):
        folders[:] = sorted(each for each in folders if not is_hidden(each))
        for each in folders:
            path = os.path.join(root, each)
            if _is_image(each):
                raise UserError(f"cannot read the image {path}: it is a folder; rename or remove it")
            if os.path.islink(path):
                _check_link(path, str(folder.parent), name)
        images = sorted(each for each in files if _is_image(each) and not is_hidden(each))
        if root == str(folder):
            top = _Class(tuple(folders), (), len(images))
        found.append((root, images))
    paths = tuple(os.path.join(root, each) for root, images in sorted(found) for each in images)
    return _Class(top.folders, paths, top.direct)


def _raise(fault: OSError) -> None:
    raise fault


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _check_level(where: Path, found: dict[str, _Class], name: str) -> None:
    """Refuse a folder one level above the one that is meant; warn where that is only likely."""
    higher = [each for each, inside in found.items() if _holds_parts(where / each, inside.folders)]
    if higher:
        meant = " or ".join(f"imagefolder:{where / each}" for each in higher[:3])
        raise UserError(f"{name}: {_some(higher)} holds a train part of its own; did you mean {meant}?")
    deep = [inside.folders for inside in found.values() if not inside.direct and len(inside.folders) > 1]
    if len(found) == 1 and deep:
        (each,) = found
        raise UserError(
            f"{name}: it has one class only, {each}, whose folders ({_some(list(deep[0]))}) look like the classes; "
            f"did you mean imagefolder:{where / each}?"
        )
    if len(found) > 1 and len(deep) == len(found) and len(set(deep)) == 1:
        warn_once(
            f"{name}: the classes are {_some(list(found))}, and each holds the folders {_some(list(deep[0]))}; if "
            f"those are the classes, give one of {where}/*"
        )


def _holds_parts(folder: Path, inside: tuple[str, ...]) -> bool:
    return any(each.lower() in TRAIN and _folders(folder / each) for each in inside)


def _check_filled(where: Path, found: dict[str, _Class], name: str) -> None:
    empty = [each for each, inside in found.items() if not inside.files]
    if empty:
        raise UserError(
            f"{name}: no image of class {_some(empty)} in {where / empty[0]}; add images ({', '.join(EXTENSIONS)}) or "
            "remove the folder"
        )


def _check_same_classes(test: list[str], train: list[str], train_folder: Path, where: Path, name: str) -> None:
    """Refuse a test part with other class folders than the train part: it would silently renumber the labels."""
    if train != test:
        odd = ", ".join(sorted(set(train) ^ set(test))[:5])
        raise UserError(
            f"{name}: the test part has other class folders than the train part ({odd}); make {where} and "
            f"{train_folder} the same"
        )


@contextmanager
def _named_faults(name: str) -> Iterator[None]:
    """Inside, a folder that cannot be listed is the user's to correct, and named."""
    try:
        yield
    except OSError as fault:
        raise UserError(f"{name}: cannot list {fault.filename}: {fault.strerror}") from fault
