"""YAML as people write configurations: version 1.2's plain values, no key twice, and errors of one line."""

import difflib
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from sft.system.errors import UserError, first_line
from sft.system.files import read_bytes

VALUES_LIMIT = 10_000
"""Values that a configuration may have, aliases written out; real ones have a hundred."""


def read_yaml(path: Path) -> dict[Any, Any]:
    """The mapping in a YAML file. Raises UserError, one line that names the file, when there is none."""
    if not path.exists():
        raise UserError(f"{path}: no such configuration file{_near(path)}")
    try:
        text = read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        raise UserError(f"{path}: not a mapping of sections")
    return values


def _near(path: Path) -> str:
    """The files beside it, or in configs/, of a similar name; some of all where none is."""
    there = {file.stem: str(file) for place in (Path("configs"), path.parent) for file in sorted(place.glob("*.yaml"))}
    if near := [path.stem] if path.stem in there else difflib.get_close_matches(path.stem, there, n=2):
        return f"; did you mean {' or '.join(there[name] for name in near)}?"
    return f"; there: {', '.join([*there.values()][:5])}" if there else ""


def parse_yaml(text: str, place: str) -> Any:
    """The value that `text` is. Raises UserError, one line that names `place`, when it is not YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}:" if error.problem_mark else ""
        raise UserError(f"{place}:{line} {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:  # TypeError: a list tagged as a mapping
        raise UserError(f"{place}: not YAML: {first_line(error)}") from None
    except RecursionError:
        raise UserError(f"{place}: not YAML: nested too deeply") from None


def _yaml_1_2(base: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """`base` and YAML 1.2's rules for plain values: 3e-4 is a number; `no`, 010 and 2024-01-01 are text."""
    rules = [
        ("bool", "true|True|TRUE|false|False|FALSE", "tTfF"),
        ("null", "~|null|Null|NULL|", ["~", "n", "N", ""]),
        ("int", "[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
        ("float", r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)", "-+.0123456789"),
        ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
        ("merge", "<<", "<"),
    ]
    resolvers = {first: list(known) for first, known in base.items()}
    for tag, pattern, starts in rules:
        for first in starts:
            resolvers.setdefault(first, []).append((f"tag:yaml.org,2002:{tag}", re.compile(f"(?:{pattern})$")))
    return resolvers


_CORE = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
_CONSTRUCTORS = {tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag is None or tag in _CORE}
"""Those of the types of YAML 1.2's core schema, which are JSON's; None: the error for any other."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = _yaml_1_2({})
    yaml_constructors = _CONSTRUCTORS

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """As SafeLoader's, but what contains itself is an error, and so is a value that its tag does not fit."""
        try:
            return super().construct_object(node, deep=True)
        except (ValueError, LookupError):
            problem = f"{str(node.value)[:60]!r} cannot be read as {node.tag.rpartition(':')[2]}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from None

    def get_single_node(self) -> yaml.Node | None:
        """As SafeLoader's, but aliases that repeat each other (a "billion laughs") are an error."""
        root = super().get_single_node()
        if root is not None:
            _count(root, {})
        return root

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """As SafeLoader's, but a key written twice is an error."""
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # SafeLoader's error
            if key.value in lines:
                problem = f"{key.value} is given twice, first on line {lines[key.value]}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _count(node: yaml.Node, counted: dict[int, int]) -> int:
    """How many values a node is with its aliases written out; more than `VALUES_LIMIT`, or endless, is an error."""
    if id(node) in counted:
        return counted[id(node)]
    counted[id(node)] = VALUES_LIMIT  # should it be found inside of itself
    children = node.value if isinstance(node, yaml.CollectionNode) else []
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in children for child in pair]
    counted[id(node)] = total = 1 + sum(_count(child, counted) for child in children)
    if total > VALUES_LIMIT:
        raise yaml.composer.ComposerError(None, None, "too many values, with its aliases written out", node.start_mark)
    return total


def dump_yaml(values: Any) -> str:
    """`values` as YAML in their order; reading it gives equal values, whichever version's rules a reader follows."""
    return yaml.dump(values, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=120)


class _Dumper(yaml.SafeDumper):
    # Text is quoted where either version of YAML would read something else.
    yaml_implicit_resolvers = _yaml_1_2(yaml.SafeDumper.yaml_implicit_resolvers)

    def analyze_scalar(self, scalar: str) -> Any:
        """As SafeDumper's, but Unicode's line breaks are written as escapes: a reader would make others of them."""
        analysis = super().analyze_scalar(scalar)
        if any(line_break in scalar for line_break in "\x85\u2028\u2029"):
            analysis.allow_flow_plain = analysis.allow_block_plain = analysis.allow_single_quoted = False
        return analysis
