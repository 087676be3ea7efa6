"""Changes one workload's `mode` in the text of a configuration, and nothing else: comments and layout stay."""

import difflib
from pathlib import Path

import yaml

from controllers.config import Config
from controllers.domain import Mode
from exporters.runtime.config import ConfigError, validate

BY_HAND = "change it by hand"


class PatchError(Exception):
    """It cannot be changed by itself; says why."""


def with_mode(text: str, config: Config, identity: str, mode: Mode, path: Path) -> str:
    """`text` of the file `path` (read as `config`) with `workloads.*.mode` of this workload. Raises PatchError."""
    number = next(i for i, w in enumerate(config.workloads) if w.identity == identity)
    changed = _edited(text, _workload_node(text, number, path), mode, path)
    wanted = [w.model_copy(update={"mode": mode}) if w.identity == identity else w for w in config.workloads]
    try:
        became = validate(Config, yaml.safe_load(changed), path)
    except (ConfigError, yaml.YAMLError) as error:
        raise PatchError(
            f"{path}: workloads.{number}.mode cannot be changed without breaking the file; {BY_HAND}"
        ) from error
    if became != config.model_copy(update={"workloads": wanted}):
        raise PatchError(
            f"{path}: workloads.{number}.mode is shared with something else (an anchor, perhaps); {BY_HAND}"
        )
    return changed


def diff(before: str, after: str, path: Path) -> str:
    """As `patch FILE` takes it."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), str(path)
    )
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)


def _workload_node(text: str, number: int, path: Path) -> yaml.MappingNode:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    found = next((v for k, v in root.value if k.value == "workloads"), None) if root else None
    node = found.value[number] if isinstance(found, yaml.SequenceNode) and number < len(found.value) else None
    if not isinstance(node, yaml.MappingNode):
        raise PatchError(f"{path}: workloads.{number} does not stand in this file; {BY_HAND}")
    return node


def _edited(text: str, node: yaml.MappingNode, mode: Mode, path: Path) -> str:
    pairs: list[tuple[yaml.Node, yaml.Node]] = node.value
    for key, value in pairs:
        if key.value == "mode":
            return text[: value.start_mark.index] + mode.value + text[value.end_mark.index :]
    # Below the last key whose value stands here (an alias has the marks of its anchor) and ends on its own line;
    # `name`, which every workload has, is one.
    here = [(key, value) for key, value in pairs if value.start_mark.index > key.start_mark.index]
    found = here[-1:] if node.flow_style else [pair for pair in here if _ends_on_its_line(pair[1])][-1:]
    if not found:
        raise PatchError(f"{path}: there is no place for workloads.*.mode between its aliases; {BY_HAND}")
    key, value = found[0]
    if node.flow_style:
        end = value.end_mark.index
        return f"{text[:end]}, mode: {mode.value}{text[end:]}"
    end = text.find("\n", value.end_mark.index)
    newline = "\r\n" if end > 0 and text[end - 1] == "\r" else "\n"
    line = f"{' ' * key.start_mark.column}mode: {mode.value}"
    return f"{text}{newline}{line}" if end < 0 else f"{text[: end + 1]}{line}{newline}{text[end + 1 :]}"


def _ends_on_its_line(value: yaml.Node) -> bool:
    if isinstance(value, yaml.ScalarNode):
        return value.style not in ("|", ">") and value.start_mark.line == value.end_mark.line
    return isinstance(value, yaml.CollectionNode) and bool(value.flow_style)
