"""The optimiser step of a training run over all its ranks: micro-batches, their units, forward and backward.

Every rank sees the same global micro-batches and computes its share of each, part by part; the step's loss is a sum
over the objective's units divided by their number in the whole step, all micro-batches and all ranks. Where memory does
not suffice for a forward, the step begins again under a smaller token budget.

This file knows the training loop of transformers' Trainer; what models, data and objectives there are, and what is said
of them, is :mod:`rewardlab.training.trainer`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers.trainer_utils import IntervalStrategy

from rewardlab.modeling.out_of_memory import is_out_of_memory
from rewardlab.modeling.planner import Forward
from rewardlab.modeling.ranks import Ranks
from rewardlab.objectives import Objective
from rewardlab.objectives.bootstrap_heads import BootstrapHeads
from rewardlab.training import objective_parameters
from rewardlab.training.batches import GroupCollator, TargetedPart, targets_in
from rewardlab.training.head_features import HeadFeatures
from rewardlab.training.out_of_memory import StepReplay, replan
from rewardlab.training.part_step import PartStep, Rounds, counts_of, fill_up, gathered, in_order
from rewardlab.training.rank_engine import RankEngine
from rewardlab.training.saving import CheckpointingTrainer
from rewardlab.training.sharding import Sharding
from rewardlab.training.step_loader import step_loader
from rewardlab.training.supervision import Supervision


class StepTrainer(CheckpointingTrainer):
    """A Trainer that computes its steps this way; who inherits sets the attributes.

    Attributes:
        objective: The objective, with what it learns beside the model.
        sharding: How the model lies across the processes.
    """

    objective: Objective
    sharding: Sharding
    _loss: Objective | BootstrapHeads  # what is computed of a part: of each head, where there are several
    _in_steps: Supervision  # what a part's targets are made by, and its log
    _ranks: Ranks
    _collator: GroupCollator
    _replay: StepReplay
    _features: HeadFeatures | None = None  # where the head alone is trained
    _window: list[tuple[Tensor, Any]]  # scores and targets since the last log
    _window_before_step = 0

    def _engine_of_run(self) -> RankEngine:
        """The engine of the run."""
        raise NotImplementedError

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The same global micro-batches on every rank; the collator takes the rank's share."""
        assert self.train_dataset is not None
        batch_size = self._train_batch_size * self._ranks.count
        sampler = self._get_train_sampler(self.train_dataset)
        return step_loader(self.train_dataset, cast(Any, self.data_collator), sampler, self.args, batch_size=batch_size)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor | int | None]:
        """The micro-batches of one optimiser step, and its units; kept until it is done."""
        batches, units = super().get_batch_samples(epoch_iterator, num_batches, device)
        replan(batches, self._collator)  # loaded ahead, before the token budget was made smaller
        self._replay.begin(batches)
        self._window_before_step = len(self._window)
        return batches, units

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Any]], device: torch.device) -> Tensor | None:
        """Units of the objective in the whole optimiser step: all its micro-batches, all ranks.

        In shards ranks also agree here on how many forwards each of the micro-batches has.
        """
        if not batch_samples:
            return None
        units = float(sum(self._loss.num_units(t) for batch in batch_samples for t in targets_in(batch)))
        if not self.sharding.is_sharded:
            return gathered(self.accelerator, [units])[:, 0].sum()
        of_all = gathered(self.accelerator, [units, *counts_of(batch_samples)])
        fill_up(batch_samples, of_all[:, 1:].amax(0).int().tolist())
        return of_all[:, 0].sum()

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of this rank's share of one micro-batch, part by part.

        Where memory does not suffice, the step begins again under a smaller token budget.

        Returns:
            The share's part of the step's loss.
        """
        self.state.num_input_tokens_seen += inputs["num_tokens"]
        if "parts" not in inputs:
            return self._step_on_features(model, inputs, num_items_in_batch)
        model.train()
        to_train = getattr(self.optimizer, "train", None)  # optimisers without a schedule have one
        if callable(to_train):
            to_train()
        todo: Sequence[dict[str, Any]] = [inputs]
        while True:
            try:
                for batch in todo:
                    loss = self._step_on_parts(model, batch, num_items_in_batch)
                return loss
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            # Here the error, which holds what the forward had computed, is gone.
            todo = self._replay.again(inputs, batch, self._collator)
            model.zero_grad()
            self.objective.zero_grad()
            del self._window[self._window_before_step :]

    def _step_on_parts(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any) -> Tensor:
        scale = self._scale(inputs, num_items_in_batch)
        parts: list[TargetedPart] = inputs["parts"]
        step = PartStep(
            run=partial(self._run, model),
            loss=lambda scores, targets: self._loss(scores, targets) * scale,
            backward=lambda loss, is_last: self.sharding.backward(loss, is_last=is_last),
            backward_beside=self.sharding.backward_beside,
            computing=self.compute_loss_context_manager,
            exchanging=partial(self.sharding.exchanging, model),
            filler=self._engine_of_run().filler,
            device=self.args.device,
        )
        with objective_parameters.RankAverage(self.objective.parameters(), self.accelerator):
            loss, scores = step(parts, inputs.get("rounds") or Rounds.of(parts))
        for part, own in zip(parts, scores, strict=True):
            self._remember(own, part.targets)
        return loss

    def _step_on_features(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any) -> Tensor:
        """The head is called past the model's wrapper, so its gradients are exchanged here."""
        assert self._features is not None
        alone = (*self.objective.parameters(), *self._features.head.parameters())
        with objective_parameters.RankAverage(alone, self.accelerator):
            if inputs["features"] is None:  # other ranks have all of this micro-batch
                return torch.zeros((), device=self.args.device)
            return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This share's part of the step's loss, in one graph: its sum over units divided by the whole step's."""
        if "parts" in inputs:
            found = [(in_order(p, [self._run(model, f) for f in p.forwards]), p.targets) for p in inputs["parts"]]
        else:
            assert self._features is not None
            found = [(self._features.outputs(inputs["features"]).squeeze(-1), inputs["targets"])]
        losses = [self._loss(scores, targets.to(self.args.device)) for scores, targets in found]
        for scores, targets in found:
            self._remember(scores, targets)
        loss = torch.stack(losses).sum() * self._scale(inputs, num_items_in_batch)
        return (loss, {"logits": torch.cat([scores for scores, _ in found])}) if return_outputs else loss

    def _scale(self, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None) -> Tensor:
        """What a sum over this micro-batch is multiplied with: 1 / (units of the step), times the ranks.

        Gradients are averaged over ranks; the sum over ranks is what is wanted.
        """
        if num_items_in_batch is None:
            units = sum(self._loss.num_units(targets) for targets in targets_in(inputs))
            return torch.tensor(1.0 / units, device=self.args.device)
        return torch.as_tensor(self._ranks.count / num_items_in_batch, device=self.args.device).float()

    def _run(self, model: nn.Module, forward: Forward) -> Tensor:
        return self._engine_of_run().scores(forward, model)

    def _remember(self, scores: Tensor, targets: Any) -> None:
        if self.args.logging_strategy != IntervalStrategy.NO:
            self._window.append((scores.detach(), targets))

    def _window_metrics(self) -> dict[str, float]:
        """Of all pairs of all ranks since the last log; a rank that had none of them still takes part."""
        own = [(scores.cpu(), targets.to(torch.device("cpu"))) for scores, targets in self._window]
        self._window.clear()
        window = [entry for of_rank in self._ranks.gather(own) for entry in of_rank]
        return self._in_steps.metrics(window) if window else {}
