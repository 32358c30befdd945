"""The state of a training's stages: which are finished, what each starts from, and how much time it has."""

from pathlib import Path

from parking.checkpoint import FINISHED, find_last_checkpoint, find_weights
from parking.config.stages import Stage
from parking.utils.errors import UserError
from parking.utils.files import open_atomic, read_number


def choose_start(stage: Stage) -> None:
    """Set MODEL.WEIGHTS to the weights that the previous stage chose; raise a UserError if there are none."""
    if stage.starts_from is None:
        return
    weights = find_weights(stage.starts_from)
    if weights is None:
        raise UserError(
            f"stage {stage.name} starts from the weights of the stage before it, but {stage.starts_from} holds none; "
            f"train that stage first."
        )
    stage.cfg.MODEL.WEIGHTS = weights


def is_finished(stage: Stage) -> bool:
    """Whether an earlier run completed the stage, including its last evaluation."""
    return Path(stage.cfg.OUTPUT_DIR, FINISHED).exists()


def is_resumable(stage: Stage) -> bool:
    """Whether an earlier run saved a checkpoint of the stage, from which it can continue."""
    return find_last_checkpoint(stage.cfg.OUTPUT_DIR) is not None


def mark_finished(stage: Stage, seconds: float) -> None:
    """Write the file that says that a stage has finished after ``seconds``; raise a UserError if that fails."""
    path = Path(stage.cfg.OUTPUT_DIR, FINISHED)
    try:
        with open_atomic(path) as file:
            file.write(f"{seconds:.0f}\n".encode())
    except OSError as e:
        raise UserError(f"{path} cannot be written ({e.strerror or e}); make room and continue with --resume.") from e


def share_of_budget(stage: Stage, stages: list[Stage], done: list[Stage]) -> float | None:
    """Return how many seconds of SOLVER.MAX_HOURS this stage may take; None if there is no limit.

    The time that the finished stages have not used is divided among the unfinished ones in proportion to iterations.

    Args:
        stages: all stages of the training.
        done: the finished ones.
    """
    hours = stage.cfg.SOLVER.MAX_HOURS
    if hours <= 0:
        return None
    unfinished = [other for other in stages if other not in done]
    part = stage.cfg.SOLVER.MAX_ITER / sum(other.cfg.SOLVER.MAX_ITER for other in unfinished)
    # The file FINISHED holds the seconds that its stage took.
    seconds_used = sum(read_number(Path(other.cfg.OUTPUT_DIR, FINISHED)) for other in done)
    return (hours * 3600 - seconds_used) * part
