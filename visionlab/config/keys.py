"""The shape of a config: its keys, the components that they hold, and the classes these name."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from visionlab.config.errors import ConfigError
from visionlab.registry import MODELS, Registry, resolve

# component key -> registry, or the place of one; a plural key holds a list or dict of components
COMPONENT_KEYS: dict[str, Registry | str] = {
    "task": "visionlab.tasks:TASKS",
    "evaluation": "visionlab.tasks:EVALUATIONS",
    "optimizer": "visionlab.tasks:OPTIMIZERS",
    "data": "visionlab.data:DATA",
    "dataset": "visionlab.data:DATASETS",
    "transform": "visionlab.data:TRANSFORMS",
    "model": MODELS,
    "backbone": "visionlab.backbones:BACKBONES",
    "mask": "visionlab.masking:MASKS",
    "decoder": "visionlab.masking:DECODERS",
    "head": "visionlab.heads:HEADS",
    "physics": "visionlab.proximal:PHYSICS",
    "estimator": "visionlab.rotation:ESTIMATORS",
    "camera": "visionlab.rotation:CAMERAS",
    "flow": "visionlab.rotation:FLOWS",
}
# no component holds a list of tasks; `tasks` are names (of a MoE backbone)
PLURALS = {f"{key}s": key for key in COMPONENT_KEYS if key != "task"}
TOP_KEYS = ("task", "data", "trainer", "seed", "output", "evaluations")
TRAINER = "lightning.pytorch.trainer.trainer:Trainer"
RESERVED = ("name", "_target_")
# keys of `trainer` that are this project's, not Lightning's
OWN_TRAINER_KEYS = ("checkpoint_every_n_steps", "activation_checkpointing")


def components(config: Any, path: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every component below ``config`` as (dotted path, component key, mapping), parents first."""
    items = config.items() if isinstance(config, Mapping) else enumerate(config)
    for name, value in items:
        here = f"{path}.{name}" if path else str(name)
        if name in COMPONENT_KEYS and value is not None:
            yield here, str(name), as_mapping(value)
        elif name in PLURALS and isinstance(value, (Mapping, list)):
            inner = value.items() if isinstance(value, Mapping) else enumerate(value)
            for k, v in inner:
                yield f"{here}.{k}", PLURALS[name], as_mapping(v)
        if isinstance(value, (Mapping, list)):
            yield from components(value, here)


def registry(key: str) -> Registry:
    """The registry behind a component key."""
    return resolve(COMPONENT_KEYS[key])


def locate(key: str, node: Mapping[str, Any]) -> Callable[..., Any]:
    """The class or function that a component mapping names.

    Raises:
        ConfigError: its module or attribute does not exist.
    """
    if "_target_" not in node:
        return registry(key).get(node["name"])
    target = str(node["_target_"])
    module, _, attribute = target.rpartition(".")
    try:
        return resolve(f"{module}:{attribute}")
    except ModuleNotFoundError as error:
        if error.name and not f"{module}.".startswith(f"{error.name}."):
            raise  # a package that the user's own module needs is missing: its own message is right
        raise ConfigError(
            [f"_target_ '{target}': no module '{error.name}' can be imported"]
        ) from error
    except (AttributeError, ValueError) as error:
        raise ConfigError([f"_target_ '{target}' does not exist; write package.Class"]) from error


def as_mapping(value: Any) -> Any:
    """A component given by its name alone as ``{"name": ...}``; anything else as it is."""
    return {"name": value} if isinstance(value, str) else value


def arguments_of(node: Mapping[str, Any]) -> dict[str, Any]:
    """What a component mapping hands to its constructor: all but ``name`` and ``_target_``."""
    return {k: v for k, v in node.items() if k not in RESERVED}


def title(component: Mapping[str, Any]) -> str:
    """What a component calls itself in messages."""
    return str(component.get("name") or component.get("_target_"))
