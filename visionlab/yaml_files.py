"""YAML from anyone: plain data, of a size that a config has."""

from pathlib import Path
from typing import Any

_MAX_BYTES, _MAX_NODES = 2**20, 100_000


def load(path: Path) -> Any:
    """What a YAML file holds, with interpolations as they stand; tags run no code.

    Raises:
        ValueError: not readable, or larger than any config: in bytes, in depth, or once its
            aliases are written out ("billion laughs").
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if path.stat().st_size > _MAX_BYTES:
        raise ValueError(f"{path.stat().st_size} bytes are no config; at most {_MAX_BYTES}")
    try:
        text = path.read_text(encoding="utf-8")
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is not None and _size(root, {}) > _MAX_NODES:
            raise ValueError(f"its aliases write out to more than {_MAX_NODES} values")
        return OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except (yaml.YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ValueError(" ".join(str(error).split())) from error


def _size(node: Any, known: dict[int, int]) -> int:
    """Values below a node of the parsed text, each alias counted as what it stands for."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = _MAX_NODES  # an alias of what it lies in has no end
    value = node.value
    inner = [] if isinstance(value, str) else value
    total = 1
    for part in inner:
        total += sum(_size(n, known) for n in (part if isinstance(part, tuple) else (part,)))
    known[id(node)] = total
    return total
