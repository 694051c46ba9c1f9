"""Parts by name, and their arguments: registered, checked, written into files and made again."""

from gpunn.config.arguments import arguments_of as arguments_of
from gpunn.config.arguments import needed_by as needed_by
from gpunn.config.parts import PARTS as PARTS
from gpunn.config.parts import Part as Part
from gpunn.config.parts import custom_classes as custom_classes
from gpunn.config.parts import custom_classes_of as custom_classes_of
from gpunn.config.parts import nearest as nearest
from gpunn.config.parts import register as register
from gpunn.config.tables import as_part as as_part
from gpunn.config.tables import check_names as check_names
from gpunn.config.tables import from_config as from_config
from gpunn.config.tables import from_table as from_table
from gpunn.config.tables import to_built_config as to_built_config
from gpunn.config.tables import to_config as to_config
