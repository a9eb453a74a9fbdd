"""A panel of the report as data: both templates, HTML and Markdown, loop over sections and know no panel by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

SHEET = 5  # columns beside the first that a sheet of A4 has room for
Legend = Sequence[tuple[Markup, str]]  # a mark, such as a piece of a line, and what it stands for


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Args:
        text: what it says.
        value: what the column is sorted by; the text by default.
        hint: shown while the pointer is on the cell.
        under: small below the text: how far the number can be trusted.
        beside: small below that: the published number.
        tone: "agrees", "suspicious", "less" or "": the colour of what the cell says.
        mark: drawn before the text, such as a piece of the line in charts.
        code: True for the name of a field or a file.
        best: True for the best number of a column, and for those within the error of it.

    Example:
        >>> Cell("50.00", 50.0).tone
        ''
    """

    text: str
    value: float | str | None = None
    hint: str = ""
    under: str = ""
    beside: str = ""
    tone: str = ""
    mark: Markup = Markup()
    code: bool = False
    best: bool = False

    @property
    def sort_key(self) -> float | str:
        """The value, or the text of a cell that has none."""
        return self.text if self.value is None else self.value


@dataclass(frozen=True)
class Column:
    """The heading of a column.

    Args:
        name: the heading.
        number: True for a column of numbers.
    """

    name: str
    number: bool = False


@dataclass(frozen=True)
class Table:
    """A table, the first cell of each row naming the row.

    Args:
        columns: headings.
        rows: a cell for each heading.
        label: what the table is of, for readers who cannot see it.
        style: "sortable" by a click on a heading, or "settings", one row a field, split over several sheets on paper.

    Example:
        >>> table = Table([Column("field"), *map(Column, "abcdefg")], [], "settings", style="settings")
        >>> [[column.name for column in sheet.columns] for sheet in table.sheets]
        [['field', 'a', 'b', 'c', 'd', 'e'], ['field', 'f', 'g']]
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    label: str
    style: Literal["sortable", "settings"] = "sortable"

    @property
    def sheets(self) -> "list[Table]":
        """The table cut for paper, the first column on each piece; empty where one sheet holds the whole of it."""
        if self.style == "sortable" or len(self.columns) - 1 <= SHEET:
            return []
        pieces = []
        for first in range(1, len(self.columns), SHEET):
            shown = slice(first, first + SHEET)
            rows = [[row[0], *row[shown]] for row in self.rows]
            pieces.append(Table([self.columns[0], *self.columns[shown]], rows, self.label, self.style))
        return pieces


@dataclass(frozen=True)
class Values:
    """The numbers behind a figure.

    Args:
        title: what they are.
        head: headings.
        rows: a text for each heading.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A drawing with its caption, and its numbers where a reader may want them.

    Args:
        caption: stands below the drawing.
        svg: the drawing; empty for numbers alone.
        values: all numbers, which the HTML unfolds.
        excerpt: what Markdown shows in place of `values`, where those are too many.

    Example:
        >>> Figure("accuracy", Markup("<svg></svg>"), Values("accuracy", ["epoch"], [["1"]])).in_markdown.title
        'accuracy'
    """

    caption: str
    svg: Markup
    values: Values | None = None
    excerpt: Values | None = None

    @property
    def in_markdown(self) -> Values | None:
        """The numbers that Markdown shows."""
        return self.excerpt or self.values


@dataclass(frozen=True)
class Picture:
    """A bitmap.

    Args:
        src: its data: address.
        alt: what it shows, for readers who cannot see it.
        hint: shown while the pointer is on it.
        below: text below it.
        above: text above it.
        kind: CSS classes that place it in its card.
        tone: "agrees", "suspicious" or "": the colour of the text below.
    """

    src: str
    alt: str
    hint: str
    below: str = ""
    above: str = ""
    kind: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Card:
    """Pictures that belong together.

    Args:
        caption: stands above them.
        name: the end of the caption, in bold.
        pictures: side by side.
    """

    caption: str
    name: str
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Listing:
    """A list.

    Args:
        entries: texts, or pairs of a term and what is said of it.
        style: CSS class.
        code: True where the entries, or the terms, are names of fields or files.
        folded: True for a list that the HTML shows on demand, in one paragraph.
    """

    entries: Sequence[str] | Sequence[tuple[str, str]]
    style: str = ""
    code: bool = False
    folded: bool = False

    @property
    def has_terms(self) -> bool:
        """True for pairs."""
        return bool(self.entries) and not isinstance(self.entries[0], str)


@dataclass(frozen=True)
class Section:
    """A panel of the report, or, among the `parts` of another, a piece of one under a heading of its own.

    Drawings, cards and pictures, with what introduces them, are shown in the HTML alone; Markdown has the numbers. A
    section is shown in the order of these fields, `parts` last.

    Args:
        title: the heading; empty for none.
        anchor: name in the address of the heading; only of a whole panel.
        link: short heading in the navigation; the title by default.
        markdown_title: the heading in Markdown; the title by default.
        warnings: reasons not to compare numbers, before everything else.
        intro: a sentence or two about what is drawn.
        legend: what marks stand for.
        tables: tables.
        listing: a list.
        note: small print, in HTML.
        markdown_note: small print, as Markdown: what comes from files is escaped in it already.
        figures: drawings in a grid.
        layout: "panels" for small drawings, "listed" for figures that consist of numbers.
        cards: groups of pictures.
        pictures: single pictures in a row.
        parts: pieces with headings of their own.

    Example:
        >>> Section("Training", anchor="training").is_empty
        True
        >>> Section("Folders", listing=Listing(["runs/a"])).is_in_markdown
        True
    """

    title: str
    anchor: str = ""
    link: str = ""
    markdown_title: str = ""
    warnings: Sequence[str] = ()
    intro: str = ""
    legend: Legend = ()
    tables: Sequence[Table] = ()
    listing: Listing | None = None
    note: str = ""
    markdown_note: str = ""
    figures: Sequence[Figure] = ()
    layout: Literal["", "panels", "listed"] = ""
    cards: Sequence[Card] = ()
    pictures: Sequence[Picture] = ()
    parts: "Sequence[Section]" = ()

    @property
    def is_empty(self) -> bool:
        """True if there is nothing to show but a heading and an introduction."""
        return not (self.is_in_markdown or self.figures or self.cards or self.pictures) and all(
            part.is_empty for part in self.parts
        )

    @property
    def is_in_markdown(self) -> bool:
        """True if there are numbers or words, which Markdown shows too."""
        numbers = any(figure.in_markdown for figure in self.figures)
        words = self.warnings or self.tables or (self.listing and self.listing.entries)
        return bool(numbers or words) or any(part.is_in_markdown for part in self.parts)
