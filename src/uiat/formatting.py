"""Text for numbers, threat models and small tables: percentages, mean ± deviation, radii as n/255, "Linf 8/255"."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import pstdev

from uiat.errors import UserError, strip_controls
from uiat.threat import Threat, parse


def percent(fraction: float | None, digits: int = 2) -> str:
    """Return a fraction as a percentage; a dash for None.

    Example:
        >>> percent(0.4567), percent(0.4567, 1), percent(None)
        ('45.67 %', '45.7 %', '-')
    """
    return "-" if fraction is None else f"{100 * fraction:.{digits}f} %"


def sparkline(values: Sequence[float], width: int = 16) -> str:
    """Return numbers from 0 as bars of text, the highest of full height; of more than `width`, that many in turn.

    Example:
        >>> sparkline([0.0, 0.25, 0.5, 0.4])
        '▁▅█▇'
    """
    bars, highest = "▁▂▃▄▅▆▇█", max(values, default=0.0)
    shown = [values[i * len(values) // width] for i in range(1, width)] if len(values) > width else list(values)
    shown = [*shown, values[-1]] if len(values) > width else shown
    return "".join(bars[round((len(bars) - 1) * value / highest)] if highest > 0 else bars[0] for value in shown)


def batch_accuracy_name(*, attacked: bool) -> str:
    """Return what the accuracy that training itself measures is called: "correct" of a step, "train_correct" of a row.

    Example:
        >>> batch_accuracy_name(attacked=True), batch_accuracy_name(attacked=False)
        ('accuracy on attacked batches', 'accuracy on training batches')
    """
    return f"accuracy on {'attacked' if attacked else 'training'} batches"


def class_spread(accuracies: Sequence[float | None]) -> dict[str, float]:
    """Measure how unevenly an accuracy falls on the classes (robust fairness, Xu et al., ICML 2021).

    Args:
        accuracies: that of each class; None for a class of which there is no image, which does not count.

    Returns:
        "worst", the lowest; "worst_class", the first class that has it; "gap", the highest less the lowest; "std", the
        standard deviation over the classes. Empty where no class has an image.

    Example:
        >>> class_spread([0.5, None, 0.9])
        {'worst': 0.5, 'worst_class': 0, 'gap': 0.4, 'std': 0.2}
    """
    known = [value for value in accuracies if value is not None]
    if not known:
        return {}
    worst = min(known)
    return {
        "worst": worst,
        "worst_class": accuracies.index(worst),
        "gap": max(known) - worst,
        "std": pstdev(known),
    }


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and the standard deviation of a sample; the deviation of a single value is None.

    Example:
        >>> mean_and_deviation([1.0, 3.0])
        (2.0, 1.414)
    """
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5


def plus_minus(mean: float, deviation: float | None, *, scale: float = 100.0, digits: int = 1) -> str:
    """Return "mean ± deviation", or the mean alone where there is no deviation.

    Args:
        mean: a mean, such as a fraction of images.
        deviation: its standard deviation, or None.
        scale: factor on both: 100 turns fractions into percent.
        digits: digits after the point.

    Example:
        >>> plus_minus(0.6, 0.1414), plus_minus(1234.0, None, scale=1)
        ('60.0 ± 14.1', '1,234.0')
    """
    text = f"{scale * mean:,.{digits}f}"
    return text if deviation is None else f"{text} ± {scale * deviation:,.{digits}f}"


def spread(values: Sequence[float], *, scale: float = 100.0, digits: int = 1) -> str:
    """Return "mean ± standard deviation" of a sample; the value itself where there is one, a dash where there is none.

    Args:
        values: the sample, such as the accuracies of several seeds.
        scale: factor on both: 100 turns fractions into percent.
        digits: digits after the point.

    Example:
        >>> spread([0.5, 0.7]), spread([0.5]), spread([])
        ('60.0 ± 14.1', '50.0', '–')
    """
    return plus_minus(*mean_and_deviation(values), scale=scale, digits=digits) if values else "–"


def whole_255ths(value: float) -> int | None:
    """Return n for a number that is n/255, to three digits after the point of n; None for any other number.

    Example:
        >>> whole_255ths(0.03137255), whole_255ths(0.03)
        (8, None)
    """
    pixels = round(255 * value)
    return pixels if abs(255 * value - pixels) < 1e-3 else None


def exact_255ths(value: float) -> float | str:
    """Return "n/255" for a number that is exactly that in floating point, so that it reads back to the last bit.

    Example:
        >>> exact_255ths(8 / 255), exact_255ths(0.03137255)
        ('8/255', 0.03137255)
    """
    pixels = whole_255ths(value)
    return value if pixels is None or pixels / 255 != value else f"{pixels}/255"


def in_255ths(norm: str, epsilon: float) -> bool:
    """True if people write such a radius in 255ths: a whole number of them in Linf, unless its decimals are few.

    Example:
        >>> in_255ths("Linf", 8 / 255), in_255ths("Linf", 0.2), in_255ths("L2", 8 / 255)
        (True, False, False)
    """
    return norm == "Linf" and bool(whole_255ths(epsilon)) and len(f"{epsilon:.4g}") > 4


def radius_text(norm: str, epsilon: float, *, digits: int = 4) -> str:
    """Return a radius as people write it: Linf in 255ths where it is a whole number of them, the others in decimals.

    Example:
        >>> radius_text("Linf", 8 / 255), radius_text("L2", 0.5)
        ('8/255', '0.5')
    """
    return f"{whole_255ths(epsilon)}/255" if in_255ths(norm, epsilon) else f"{epsilon:.{digits}g}"


def strength_text(epsilon: float, *, pixels: bool, digits: int = 3) -> str:
    """Return any radius in a unit that is given, such as that of other radii beside it.

    Args:
        epsilon: the radius in units of [0, 1]; below 0 for an inverse attack.
        pixels: write it in 255ths, whole or not, instead of decimals.
        digits: significant digits.

    Example:
        >>> strength_text(8 / 255, pixels=True), strength_text(0.0265, pixels=True), strength_text(-0.125, pixels=False)
        ('8/255', '6.76/255', '-0.125')
    """
    return f"{255 * epsilon:.{digits}g}/255" if pixels and epsilon else f"{epsilon:.{digits}g}"


def threat_text(threat: Threat | str | None) -> str:
    """Return a threat model for people, "Linf 8/255"; text that is not one is returned as it is.

    Example:
        >>> threat_text("Linf:0.03137255"), threat_text("L2:0.5"), threat_text("Linf:0.2"), threat_text(None)
        ('Linf 8/255', 'L2 0.5', 'Linf 0.2', 'none')
    """
    if isinstance(threat, str):
        try:
            threat = parse(threat)
        except UserError:
            return str(threat)
    return "none" if threat is None else f"{threat.norm} {radius_text(threat.norm, float(threat.epsilon))}"


def threat_option(threat: Threat | None) -> str:
    """Return a threat model as --threat takes it.

    Example:
        >>> from uiat.threat import Linf
        >>> threat_option(Linf(0.1)), threat_option(Linf(8 / 255))
        ('Linf:0.1', 'Linf:8/255')
    """
    return "none" if threat is None else f"{threat.norm}:{radius_text(threat.norm, float(threat.epsilon), digits=7)}"


def threat_record(threat: Threat, *, exact: bool = False) -> str:
    """Return a threat model as files hold it, for `uiat.threat.parse`: decimals, whatever the radius.

    Args:
        threat: the threat model.
        exact: all digits, as weights files have them, instead of the seven of evaluation.json.

    Example:
        >>> from uiat.threat import Linf
        >>> threat_record(Linf(8 / 255)), threat_record(Linf(8 / 255), exact=True)
        ('Linf:0.03137255', 'Linf:0.03137254901960784')
    """
    epsilon = float(threat.epsilon)
    return f"{threat.norm}:{epsilon!r}" if exact else f"{threat.norm}:{epsilon:.7g}"


def parse_threat_record(text: object, path: Path) -> Threat:
    """Read the threat model that a file holds, however large the radius that damage has made of it.

    Args:
        text: what the file holds.
        path: the file, for the message.

    Raises:
        UserError: it is no threat model.

    Example:
        >>> parse_threat_record("Linf:1e999999999", Path("best.safetensors"))
        Traceback (most recent call last):
        uiat.errors.UserError: best.safetensors is damaged: 'Linf:1e999999999' is no threat model
    """
    norm, _, epsilon = text.partition(":") if isinstance(text, str) else ("", "", "")
    try:
        if not 0 < float(epsilon) < float("inf"):
            raise ValueError
        return parse(f"{norm}:{float(epsilon)!r}")
    except ValueError:
        raise UserError(f"{path} is damaged: {str(text)[:40]!r} is no threat model") from None


DOUBT = "do not believe"  # the first words of the verdict of the self-checks where they speak against a number


def is_doubtful(verdict: str) -> bool:
    """True if the self-checks speak against a number: their verdict says so in its first words.

    Example:
        >>> is_doubtful("do not believe this number: gradients are zero"), is_doubtful("nothing speaks against it")
        (True, False)
    """
    return verdict.startswith(DOUBT)


UNCHECKED = "not checked"  # the first words where the self-checks failed


def was_checked(verdict: str) -> bool:
    """True if the self-checks have ended; False where they were left out or failed.

    Example:
        >>> was_checked("nothing speaks against it"), was_checked(""), was_checked("not checked: they ended with ...")
        (True, False, False)
    """
    return bool(verdict) and not verdict.startswith(UNCHECKED)


@dataclass(frozen=True)
class Summary:
    """A result as `print` and notebooks show it: a title, a table, and lines below it.

    Args:
        title: what it is of, in a line.
        rows: the heading of the table and its rows, the first cell of each flush left, the others flush right.
        lines: sentences below the table.

    Example:
        >>> print(Summary("2 images", [("attack", "accuracy"), ("clean", "50.00 %")], ["verdict: none"]).text)
        2 images
        attack  accuracy
        clean    50.00 %
        verdict: none
    """

    title: str
    rows: Sequence[Sequence[str]] = ()
    lines: Sequence[str] = ()

    @property
    def text(self) -> str:
        """The summary as lines of text."""
        widths = [max(map(len, column)) for column in zip(*self.rows, strict=True)]
        left = [row[0].ljust(widths[0]) for row in self.rows]
        right = [[cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)] for row in self.rows]
        cells = [(first, *others) for first, others in zip(left, right, strict=True)]
        lines = [self.title, *("  ".join(row).rstrip() for row in cells), *self.lines]
        return strip_controls("\n".join(lines))

    @property
    def html(self) -> str:
        """The summary as HTML, in which no text is taken for markup."""
        kinds = ["th", *["td"] * (len(self.rows) - 1)]
        rows = (
            "".join(f"<{kind}>{html.escape(cell)}</{kind}>" for cell in row)
            for kind, row in zip(kinds, self.rows, strict=False)
        )
        table = f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>" if self.rows else ""
        below = "".join(f"<div>{html.escape(line)}</div>" for line in self.lines)
        return strip_controls(f"<div><b>{html.escape(self.title)}</b>{table}{below}</div>")
