"""YAML and ``key=value`` in, checked objects out.

    config = read("configs/quickstart.yaml", ["trainer.max_epochs=2"])   # plain dicts
    check(config)                                                         # all errors together
    task = build(config["task"], key="task")

A mapping under a *component key* (``model``, ``mask``, ``data``, ...; see `COMPONENT_KEYS`) names
a registered class by ``name`` or a user's own by ``_target_: package.Class``; its other keys are
the arguments of the constructor. Children are built first, so constructors receive objects.

`read` and the first half of `check` import no torch: syntax, files, override keys and component
names are reported within a second.

Reading order: ``keys`` (where components stand) -> ``merging`` and ``overrides`` (one mapping
over another) -> ``reading`` -> ``checking`` -> ``building``.
"""

from visionlab.config.building import build, build_tree
from visionlab.config.checking import check, check_names, check_signatures
from visionlab.config.errors import ConfigError
from visionlab.config.keys import COMPONENT_KEYS, OWN_TRAINER_KEYS, components, locate, registry
from visionlab.config.merging import differences, merge
from visionlab.config.overrides import override
from visionlab.config.reading import read, read_plain

__all__ = [
    "COMPONENT_KEYS",
    "OWN_TRAINER_KEYS",
    "ConfigError",
    "build",
    "build_tree",
    "check",
    "check_names",
    "check_signatures",
    "components",
    "differences",
    "locate",
    "merge",
    "override",
    "read",
    "read_plain",
    "registry",
]
