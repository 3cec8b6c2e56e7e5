"""transformers' Trainer, except that each of its checkpoints is whole or not there.

transformers writes a checkpoint file by file into the folder that bears its name. Here it writes the same files into a
folder beside (:mod:`rewardlab.training.checkpoints` says which); all processes write into that one folder, which
processes on several machines must share; the first gives it its name when all are done.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from accelerate.utils import DistributedType
from safetensors import SafetensorError
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from rewardlab.errors import CheckpointError
from rewardlab.modeling.ranks import Ranks
from rewardlab.training.checkpoints import (
    SavedRun,
    checkpoints_in,
    finish_checkpoint,
    remove_leftovers,
    remove_old,
    saving_folder,
)

_LIBRARIES = ("rewardlab", "torch", "transformers", "accelerate")


class CheckpointingTrainer(Trainer):
    """A Trainer whose checkpoints are written aside, proved by a manifest, and named last."""

    _saves_aside = False  # whether a checkpoint is being written

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; first remove what a kill has left of a checkpoint."""
        if self.is_world_process_zero():  # the others save nothing before it takes part
            remove_leftovers(Path(str(self.args.output_dir)))
        return super().train(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args: Any, **kwargs: Any) -> None:
        """Log what is not logged yet before a checkpoint is written, which therefore needs to hold none of it."""
        saves = self.control.should_save or (
            self.control.should_evaluate and self.args.save_strategy == SaveStrategy.BEST
        )
        if saves and self.args.logging_strategy != IntervalStrategy.NO:
            self.control.should_log = True
        asked = self.control.should_save
        super()._maybe_log_save_evaluate(*args, **kwargs)
        if asked and not self.control.should_save and self.args.save_strategy == SaveStrategy.BEST:
            # Under "best" nothing but a stop asks for a save, and what is not the best has dropped the request.
            self._save_checkpoint(self.model_wrapped, None)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Train an epoch, unless the run that was resumed is complete: transformers would take one step more."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args: Any, **kwargs: Any) -> Any:
        """End; without transformers' removal of all checkpoints but the best, the newest among them."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args, **kwargs)
        finally:
            self.args.save_total_limit = limit

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint aside, in all processes, and give it its name; then remove old ones.

        Raises:
            CheckpointError: It cannot be written. Earlier ones are as they were.
        """
        folder, ranks = Path(self._get_output_dir(trial)), Ranks.of_this_run()
        self._saves_aside = True
        failure: BaseException | None = None
        try:
            super()._save_checkpoint(model, trial)
        except Exception as error:
            if not is_of_the_disk(error):
                raise
            failure = error
            if self.state.best_global_step or saved_by(self.accelerator) != "whole":
                # The other processes wait for this one inside transformers' saving, not below.
                raise self._not_saved(folder, f"{error}") from error
        finally:
            self._saves_aside = False
        self._raise_together(ranks, folder, failure)
        if (best := self.state.best_model_checkpoint) is not None:
            # What transformers has noted is where it was written, not what it is called.
            self.state.best_model_checkpoint = str(folder / Path(best).name)
        if ranks.index == 0:
            try:
                self._finish(folder)
            except OSError as error:
                failure = error
        self._raise_together(ranks, folder, failure)

    def _finish(self, folder: Path) -> None:
        """What the first process does when all have written."""
        step = self.state.global_step
        self.state.save_to_json(str(saving_folder(folder) / f"checkpoint-{step}" / TRAINER_STATE_NAME))
        versions = {name: version(name) for name in _LIBRARIES}
        run = SavedRun(step, self.args.world_size, saved_by(self.accelerator), versions)
        target = finish_checkpoint(folder, run)
        if self.args.push_to_hub:
            super()._push_from_checkpoint(str(target))
        remove_old(folder, self.args.save_total_limit, keep=[self.state.best_model_checkpoint])

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Not before it has its name: the hub's client reads it while training goes on."""
        if not self._saves_aside:
            super()._push_from_checkpoint(checkpoint_folder)

    def _get_output_dir(self, trial: Any) -> str:
        """Where checkpoints go; while one is written, the folder beside."""
        folder: str = super()._get_output_dir(trial)
        return str(saving_folder(Path(folder))) if self._saves_aside else folder

    def _raise_together(self, ranks: Ranks, folder: Path, failure: BaseException | None) -> None:
        """Wait for all processes; where one has failed, all stop."""
        told = [text for text in ranks.gather(f"{failure}" if failure is not None else "") if text]
        if told:
            raise self._not_saved(folder, told[0]) from failure

    def _not_saved(self, folder: Path, reason: str) -> CheckpointError:
        """Clear the folder beside, and say what stands."""
        shutil.rmtree(saving_folder(folder), ignore_errors=True)
        before = checkpoints_in(folder)
        left = f"{before[0].name} stands and is gone on from" if before else "there is none before it: it starts again"
        return CheckpointError(
            f"the checkpoint of step {self.state.global_step} cannot be saved in {folder}: {reason}",
            hint=f"make room there, or repair it, and repeat the command with --resume; {left}",
        )


def saved_by(accelerator: Any) -> str:
    """What a checkpoint's weights and optimiser are written by: ``"whole"``, or the engine that writes shards."""
    kind = accelerator.distributed_type
    if kind == DistributedType.DEEPSPEED:
        return f"ZeRO-{accelerator.state.deepspeed_plugin.zero_stage}"
    return "FSDP" if kind == DistributedType.FSDP else "whole"


def is_of_the_disk(error: BaseException) -> bool:
    """Whether an exception says that a file cannot be written.

    Python says so by OSError; safetensors, tokenizers and torch's zip writer have errors of their own.
    """
    if isinstance(error, OSError | SafetensorError):
        return True
    text = str(error)
    return "PytorchStreamWriter" in text or "inline_container" in text or "(os error" in text
