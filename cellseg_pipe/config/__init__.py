"""The experiment file: what a user asks for, checked before any work; knows nothing of pixels.

Defaults and limits are those of `segmentation.Settings`, written out here: importing them would
load the networks' library, and each job of a workflow would wait for it (2.2 s instead of 0.3).
"""

from cellseg_pipe.config._problems import ConfigError, Problem
from cellseg_pipe.config._restoring import keys_of_others
from cellseg_pipe.config._sections import Evaluate, Target
from cellseg_pipe.config.experiment import Experiment, ImageEntry
from cellseg_pipe.config.images import expand_images, with_images
from cellseg_pipe.config.loading import experiment_of, load_experiment
from cellseg_pipe.config.propose import ImageFacts, propose
from cellseg_pipe.config.units import (
    CYTOPLASM,
    Restoring,
    Unit,
    UnitSettings,
    made_targets,
    settings_of,
    unit_of,
    units,
    units_of,
)
from cellseg_pipe.config.writing import dump, schema, schema_text

__all__ = [
    "CYTOPLASM",
    "ConfigError",
    "Evaluate",
    "Experiment",
    "ImageEntry",
    "ImageFacts",
    "Problem",
    "Restoring",
    "Target",
    "Unit",
    "UnitSettings",
    "dump",
    "expand_images",
    "experiment_of",
    "keys_of_others",
    "load_experiment",
    "made_targets",
    "propose",
    "schema",
    "schema_text",
    "settings_of",
    "unit_of",
    "units",
    "units_of",
    "with_images",
]
