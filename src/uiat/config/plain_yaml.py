"""Read YAML that others have written: plain values alone, and no more of them than the settings of a run have."""

from pathlib import Path
from typing import Any

import yaml

from uiat.errors import UserError

LARGEST_FILE = 1_000_000  # bytes
LONGEST_SCALAR = 4_000  # characters; Python reads no whole number of more than 4,300 digits
MOST_NODES = 20_000  # aliases counted as what they stand for
DEEPEST = 20


class PlainLoader(yaml.SafeLoader):
    """Reads plain values: a date stays the text that it is, and a key that stands twice is refused."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping; YAML itself would let the last of two equal keys win."""
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if twice := next((key for key in keys if keys.count(key) > 1), None):
            raise yaml.constructor.ConstructorError(None, None, f"{twice!r} stands there twice", node.start_mark)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rows if not tag.endswith((":timestamp", ":merge", ":value"))]
    for first, rows in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_text(path: Path) -> str:
    """Read a text file of settings, but not more of it than settings can be long.

    Raises:
        UserError: it cannot be read, is too large, or is no text.

    Example:
        >>> read_text(Path("missing.yaml"))
        Traceback (most recent call last):
        uiat.errors.UserError: cannot read missing.yaml: No such file or directory
    """
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if len(content) > LARGEST_FILE:
        raise UserError(f"{path} is larger than {LARGEST_FILE:,} bytes: it holds no settings of a run")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file") from None


def parse_plain(text: str, *, source: str) -> Any:
    """Parse a YAML text of plain values.

    Args:
        text: the text.
        source: what messages call it: a file or a field.

    Raises:
        UserError: no YAML, or more, deeper or longer than settings are, or values that are not plain.

    Example:
        >>> parse_plain("{seed: 3, name: 2020-13-01}", source="the configuration")
        {'seed': 3, 'name': '2020-13-01'}
        >>> parse_plain("[" * 1000, source="the configuration")
        Traceback (most recent call last):
        uiat.errors.UserError: the configuration is nested more than 20 deep
    """
    if len(text) > LARGEST_FILE:
        raise UserError(f"{source} is longer than {LARGEST_FILE:,} characters")
    try:
        _check_events(text, source)
        loader = PlainLoader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except UserError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{source} is not valid YAML: {' '.join(str(error).split())[:300]}") from None


def parse_value(text: str, *, source: str) -> Any:
    """Parse the value of a field as it stands on a command line; what is not YAML is the text itself.

    Raises:
        UserError: it is longer, deeper or more than a value can be.

    Example:
        >>> parse_value("[1, 2]", source="optimisation.milestones"), parse_value("/tmp/[a", source="data.root")
        ([1, 2], '/tmp/[a')
    """
    try:
        return parse_plain(text, source=source)
    except UserError as error:
        if "is not valid YAML" in str(error):
            return text
        raise


def _check_events(text: str, source: str) -> None:
    """Refuse what a text would become if it were built, from its parts alone; an alias counts as all it stands for."""
    sizes: dict[str, int] = {}  # nodes that an anchor stands for
    inside: list[tuple[str | None, int]] = []  # the anchors of what is open, and the nodes before each of them
    nodes = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in (anchor for anchor, _ in inside):
                raise UserError(f"{source}: the alias *{event.anchor} stands inside what it stands for")
            nodes += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.NodeEvent):
            nodes += 1
            _check_node(event, source)
            if isinstance(event, yaml.CollectionStartEvent):
                inside.append((event.anchor, nodes - 1))
            elif event.anchor is not None:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = inside.pop()
            if anchor is not None:
                sizes[anchor] = nodes - before
        if nodes > MOST_NODES:
            raise UserError(f"{source} holds more than {MOST_NODES:,} values, aliases counted as what they stand for")
        if len(inside) > DEEPEST:
            raise UserError(f"{source} is nested more than {DEEPEST} deep")


def _check_node(event: Any, source: str) -> None:
    value = getattr(event, "value", "")
    if len(value) > LONGEST_SCALAR:
        raise UserError(f"{source} holds a value of {len(value):,} characters, {value[:40]!r}...")
    if event.tag not in (None, "!") and not event.tag.endswith((":str", ":map", ":seq")):
        raise UserError(f"{source} is not valid YAML of plain values: it names the type {event.tag}")
