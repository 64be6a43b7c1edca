"""``key=value`` texts of a command line, laid over a config."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from visionlab.config.errors import ConfigError
from visionlab.config.keys import RESERVED, TOP_KEYS
from visionlab.config.merging import merge
from visionlab.registry import suggest


def override(
    config: Mapping[str, Any], overrides: Sequence[str], source: str = "the command line"
) -> dict[str, Any]:
    """A copy of ``config`` with ``key=value`` texts laid over it.

    Raises:
        ConfigError: malformed overrides, all together.
    """
    changed = copy.deepcopy(dict(config))
    errors: list[str] = []
    for text in overrides:
        try:
            _apply(changed, text)
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError(errors, source)
    return changed


def _apply(config: dict[str, Any], text: str) -> None:
    """Lay one ``a.b.c=value`` over the config, in place."""
    from omegaconf import OmegaConf

    path, separator, value_text = text.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ValueError(f"'{text}' is no override; write key=value, as in trainer.max_epochs=3")
    try:
        value = OmegaConf.to_container(OmegaConf.from_dotlist([f"v={value_text}"]))["v"]  # type: ignore
    except Exception as error:
        raise ValueError(f"the value of '{text}' is not YAML: {_one_line(error)}") from error
    if keys[0] not in TOP_KEYS:
        raise ValueError(f"no key '{keys[0]}' to override. {suggest(keys[0], TOP_KEYS)}")
    if keys[-1] in RESERVED:  # the name alone: the old component's keys go with it
        keys, value = keys[:-1], {keys[-1]: value}
    _put(config, keys, value, path)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _put(config: dict[str, Any], keys: list[str], value: Any, path: str) -> None:
    node: Any = config
    for depth, key in enumerate(keys[:-1]):
        node = _step(node, key, ".".join(keys[:depth]), create=True)
    last: Any = keys[-1]
    if isinstance(node, list):
        _step(node, last, path, create=False)
        node[int(last)] = value
        return
    if not isinstance(node, dict):
        raise ValueError(f"cannot set '{path}': {'.'.join(keys[:-1])} is {node!r}, not a mapping")
    old = node.get(last)
    if isinstance(value, str) and isinstance(old, Mapping) and any(k in old for k in RESERVED):
        value = {"name": value}
    node[last] = merge({last: old}, {last: value}, ".".join(keys[:-1]))[last]


def _step(node: Any, key: str, path: str, *, create: bool) -> Any:
    if isinstance(node, list):
        if not key.isdecimal() or int(key) >= len(node):
            raise ValueError(f"'{path}' is a list of {len(node)}; '{key}' is no index of it")
        return node[int(key)]
    if not isinstance(node, dict):
        raise ValueError(f"'{path}' is {node!r}, which has no key '{key}'")
    if create and not isinstance(node.get(key), (dict, list)):
        # a component given by its name alone grows into a mapping
        old = node.get(key)
        if old is not None and not isinstance(old, str):
            here = f"{path}.{key}" if path else key
            raise ValueError(f"'{here}' is {old!r}, which has no keys")
        node[key] = {"name": old} if old else {}
    return node[key]
