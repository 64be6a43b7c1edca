"""Mappings of a checked config become objects, children first."""

from collections.abc import Mapping
from typing import Any

from visionlab import schema
from visionlab.config.checking import name_errors
from visionlab.config.errors import ConfigError
from visionlab.config.keys import COMPONENT_KEYS, PLURALS, arguments_of, as_mapping, locate, title


def build(node: Any, *, key: str, path: str = "", trust_code: bool = True) -> Any:
    """Build a component, children first.

    Args:
        node: the mapping (``name`` or ``_target_`` and arguments) or the name alone.
        key: its component key, which names the registry.
        path: where it stands in the config, for messages.
        trust_code: whether ``_target_`` may call any class. False refuses it: a checkpoint from
            elsewhere must not run code of its choice.

    Raises:
        ConfigError: the constructor refused its arguments, or ``_target_`` is not trusted.
    """
    node, path = as_mapping(node), path or key
    if errors := name_errors(path, key, node):
        raise ConfigError(errors)
    if "_target_" in node and not trust_code:
        raise ConfigError(
            [f"{path}: refuses to call '{node['_target_']}' from a file; add --trust-code (in "
             "Python trust_code=True) if you trust whoever wrote the file"]
        )  # fmt: skip
    target = locate(key, node)
    known = schema.parameters(target) or {}
    arguments = {
        name: build_tree(
            schema.convert(value, known[name].annotation) if name in known else value,
            name,
            f"{path}.{name}",
            trust_code,
        )
        for name, value in arguments_of(node).items()
    }
    try:
        return target(**arguments)
    except ConfigError:
        raise
    except (TypeError, ValueError, FileNotFoundError) as error:
        raise ConfigError([f"{path} ({title(node)}): {error}"]) from error


def build_tree(value: Any, name: str, path: str = "", trust_code: bool = True) -> Any:
    """``value`` with every component below it built; ``name`` is the key that holds it."""
    if value is None:
        return None
    if name in COMPONENT_KEYS:
        return build(value, key=name, path=path, trust_code=trust_code)
    if isinstance(value, Mapping):
        key = PLURALS.get(name)
        return {
            k: build(v, key=key, path=f"{path}.{k}", trust_code=trust_code)
            if key
            else build_tree(v, k, f"{path}.{k}", trust_code)
            for k, v in value.items()
        }
    if isinstance(value, list):
        return [build_tree(v, PLURALS.get(name, ""), f"{path}.{i}", trust_code)
                for i, v in enumerate(value)]  # fmt: skip
    return value
