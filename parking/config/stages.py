"""Read the config of a training in stages, each of which starts from the weights that the previous stage chose."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parking.utils.errors import UserError

from .checks import check_key
from .config import CfgNode, get_cfg
from .yaml_files import parse_config, read_config_text

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)


@dataclass(frozen=True)
class Stage:
    """One stage of a training, or the whole training if SOLVER.STAGES is empty.

    Attributes:
        name: name in SOLVER.STAGES; "" if that is empty.
        cfg: the config of the stage, not frozen; its SOLVER.STAGES is empty, its OUTPUT_DIR the folder of the stage.
        root: OUTPUT_DIR of the whole training, in which the folders of the stages are.
        starts_from: OUTPUT_DIR of the previous stage, whose chosen weights this one starts from; None for the first.
    """

    name: str
    cfg: CfgNode
    root: str
    starts_from: str | None = None


def read_stages(config_file: str | os.PathLike, opts: Sequence[str]) -> list[Stage]:
    """Read the stages that SOLVER.STAGES of a config lists; if it is empty, return the whole config as one stage.

    The config of a stage is ``config_file``, overridden by the file of the stage and then by the KEY VALUE pairs
    ``opts``. The folder of the stage NAME is OUTPUT_DIR/NAME.

    Raises:
        UserError: SOLVER.STAGES or a value in one of the files is wrong.
    """
    base = get_cfg()
    base.merge_from_file(config_file)
    base.merge_from_list(opts)
    if not base.SOLVER.STAGES:
        return [Stage("", base, base.OUTPUT_DIR)]
    stages: list[Stage] = []
    _check_stages(base)
    for name, file in base.SOLVER.STAGES:
        cfg = get_cfg()
        cfg.merge_from_file(config_file)
        output_dir, weights = cfg.OUTPUT_DIR, cfg.MODEL.WEIGHTS
        stage_file = _find_beside(config_file, file)
        cfg.merge_from_file(stage_file)
        if output_dir != cfg.OUTPUT_DIR or (stages and weights != cfg.MODEL.WEIGHTS):
            raise UserError(
                f"config file {stage_file}: the name of a stage determines its OUTPUT_DIR, and the previous stage its "
                f"MODEL.WEIGHTS; leave them out."
            )
        cfg.merge_from_list(opts)
        cfg.SOLVER.STAGES = []
        cfg.OUTPUT_DIR = os.path.join(base.OUTPUT_DIR, name)
        stages.append(Stage(name, cfg, base.OUTPUT_DIR, stages[-1].cfg.OUTPUT_DIR if stages else None))
    return stages


def select_stages(stages: list[Stage], name: str | None) -> list[Stage]:
    """Return all stages if ``name`` is None, else only the stage ``name``; raise a UserError if it does not exist."""
    if name is None:
        return stages
    selected = [stage for stage in stages if stage.name == name]
    if not selected:
        known = ", ".join(stage.name for stage in stages if stage.name) or "none"
        raise UserError(f"--stage {name}: SOLVER.STAGES of the config has no such stage; it has {known}.")
    return selected


def _check_stages(cfg: CfgNode) -> None:
    check_key(cfg, "SOLVER.STAGES")
    names = set()
    for name, _ in cfg.SOLVER.STAGES:
        if not _NAME.fullmatch(name) or name in names:
            raise UserError(f"SOLVER.STAGES: {name!r} occurs twice or cannot be the name of a folder; choose another.")
        names.add(name)


def _find_beside(config_file: str | os.PathLike, file: str) -> str:
    """Find the file of a stage beside the config file or beside one of its ``_BASE_`` files; return its path."""
    folders = []
    path = Path(config_file)
    while path not in folders and path.is_file():
        folders.append(path)
        content = parse_config(read_config_text(str(path)), str(path))
        base = content.get("_BASE_") if isinstance(content, dict) else None
        if not isinstance(base, str):
            break
        path = path.parent / base
    found = next((p.parent / file for p in folders if (p.parent / file).is_file()), None)
    if found is None:
        raise UserError(f"SOLVER.STAGES: the config file {file} does not exist beside {config_file}; check the path.")
    return str(found)
