"""YAML files, read without surprises."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from l4sim.errors import InputError


def read_mapping(path: Path, example: str) -> dict[str, Any]:
    """The mapping in a YAML file; ``example`` shows what one may look like.

    Raises:
        InputError: the file cannot be read, is no mapping, or names a key twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error})") from None
    try:
        mapping = yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise InputError(f"{path}{line}: {error.problem}") from None
    if not isinstance(mapping, dict):
        raise InputError(f"{path}: accepted is a mapping of keys to values, such as {example!r}")
    return mapping


class _Loader(yaml.SafeLoader):
    """YAML with two differences: a key given twice is an error, and only true and false are booleans (on and off
    are names).
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
