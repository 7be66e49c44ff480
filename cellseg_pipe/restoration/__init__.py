"""Restores images before they are segmented: less noise, less blur, more pixels."""

from cellseg_pipe.restoration._channels import check_channels
from cellseg_pipe.restoration.boxes import as_type, restored_box, restored_records
from cellseg_pipe.restoration.frozen import restore_plan_from_json, restore_plan_to_json
from cellseg_pipe.restoration.plan import RestorePlan, make_restore_plan
from cellseg_pipe.restoration.settings import RestoreSettings
from cellseg_pipe.restoration.source import KEPT_BYTES, check_same_grid, restored_source
from cellseg_pipe.restoration.whole import Restoration, restore

__all__ = [
    "KEPT_BYTES",
    "Restoration",
    "RestorePlan",
    "RestoreSettings",
    "as_type",
    "check_channels",
    "check_same_grid",
    "make_restore_plan",
    "restore",
    "restore_plan_from_json",
    "restore_plan_to_json",
    "restored_box",
    "restored_records",
    "restored_source",
]
