"""YAML in which a key stands once in its mapping."""

from typing import Any

import yaml


class DuplicateKeyError(yaml.constructor.ConstructorError):
    pass


class UniqueKeyLoader(yaml.SafeLoader):
    """YAML keeps the last of two equal keys; a configuration with two is a mistake that someone should hear of."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, (str, int)) and key in seen:
                raise DuplicateKeyError(None, None, f"the key '{key}' stands twice", key_node.start_mark)
            seen.add(key if isinstance(key, (str, int)) else repr(key))
        return super().construct_mapping(node, deep)
