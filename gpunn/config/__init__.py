"""Register parts by name, check their arguments, write them into files, and make them again."""

from gpunn.config.arguments import arguments_of, needed_by
from gpunn.config.parts import PARTS, Part, custom_classes, custom_classes_of, nearest, register
from gpunn.config.tables import as_part, check_names, from_config, from_table, to_built_config, to_config

__all__ = [
    "PARTS", "Part", "arguments_of", "as_part", "check_names", "custom_classes", "custom_classes_of", "from_config",
    "from_table", "nearest", "needed_by", "register", "to_built_config", "to_config",
]  # fmt: skip
