"""Callbacks for TRL's GRPO and RLOO: a KL coefficient that follows the KL, and state that survives a resumed run.

Written for TRL 1.16 and transformers 5. Both keep their state in ``trainer_state.json`` of every checkpoint, which
transformers writes on one rank and reads on all before training starts; so it is restored wherever the checkpoint lies,
and as exactly as JSON keeps a float. This file knows trainers; the rule of a controller is
:mod:`rewardlab.rewards.kl`'s, the state of a reward function its own.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from transformers.trainer_callback import ExportableState, TrainerCallback

from rewardlab.errors import ConfigError
from rewardlab.rewards.combining import CombinedReward
from rewardlab.rewards.kl import AdaptiveKL, FixedKL

logger = logging.getLogger(__name__)

KLPer = Literal["token", "sequence"]
"""What a KL is the mean over: completion tokens, as TRL logs it, or whole completions."""


@runtime_checkable
class HasState(Protocol):
    """A reward function with a state to keep."""

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON values."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore them."""


class _KeptState(TrainerCallback, ExportableState):
    """A callback whose state is in every checkpoint, and is restored when training starts from one."""

    def kept(self) -> dict[str, Any]:
        """The state, as plain JSON values."""
        raise NotImplementedError

    def restore(self, kept: dict[str, Any]) -> None:
        """Take what :meth:`kept` gave."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What transformers writes into ``trainer_state.json``."""
        return {"args": {}, "attributes": self.kept()}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Take the checkpoint's state; of a fresh run it is this callback's own."""
        name = type(self).__name__
        saved = state.stateful_callbacks.get(name)
        if saved is None:  # the checkpoint was made without this callback; transformers asks for its place when saving
            logger.warning("the checkpoint has no state of %s; it starts anew", name)
            state.stateful_callbacks[name] = self.state()
            return
        self.restore(saved["attributes"])


class RewardStateCallback(_KeptState):
    """Keeps the state of a trainer's reward functions in its checkpoints; see :func:`keep_reward_state`.

    Args:
        functions: Reward functions by name.
    """

    def __init__(self, functions: dict[str, HasState]) -> None:
        self.functions = functions

    def kept(self) -> dict[str, Any]:
        """Each function's state by its name."""
        return {name: function.state_dict() for name, function in self.functions.items()}

    def restore(self, kept: dict[str, Any]) -> None:
        """Give each function its state.

        Raises:
            ConfigError: The checkpoint has the state of other functions.
        """
        if kept.keys() != self.functions.keys():
            raise ConfigError(
                f"the checkpoint keeps the state of the reward functions {', '.join(sorted(kept)) or 'none'}, and the "
                f"trainer has {', '.join(sorted(self.functions)) or 'none'}",
                hint="resume with the same reward functions under the same names",
            )
        for name, state in kept.items():
            self.functions[name].load_state_dict(state)


class KLCallback(_KeptState):
    """Sets a trainer's ``beta`` by a controller, from the KL that TRL logs; see :func:`use_kl_control`.

    Args:
        trainer: A GRPO or RLOO trainer.
        controller: What the coefficient follows.
        unit: What the controller's KL is the mean over.
    """

    def __init__(self, trainer: Any, controller: FixedKL | AdaptiveKL, unit: KLPer = "sequence") -> None:
        self.trainer = trainer
        self.controller = controller
        self.unit = unit
        self._step = 0
        self._apply()

    def _apply(self) -> None:
        self.trainer.beta = self.controller.value

    def kept(self) -> dict[str, Any]:
        """The controller's state, and the step at which it was updated last."""
        return {"controller": self.controller.state_dict(), "step": self._step}

    def restore(self, kept: dict[str, Any]) -> None:
        """Go on with a checkpoint's coefficient."""
        self.controller.load_state_dict(kept["controller"])
        self._step = int(kept["step"])
        self._apply()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take the checkpoint's coefficient, if it has one; completions are counted from the step that it starts at."""
        self._step = state.global_step
        if state.global_step == 0:
            state.stateful_callbacks[type(self).__name__] = self.state()
        super().on_train_begin(args, state, control, **kwargs)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Update the coefficient from a logged KL of training; tell the loggers which was in force."""
        if logs is None or logs.get("kl") is None:
            return
        kl = float(logs["kl"])
        if self.unit == "sequence":
            kl *= float(logs["completions/mean_length"])
        told = {"kl_coef": self.controller.value}
        if isinstance(self.controller, AdaptiveKL):
            told |= {"kl_target": self.controller.target, f"kl_per_{self.unit}": kl}
        completions = (state.global_step - self._step) * self._completions_per_step(args)
        self._step = state.global_step
        if math.isfinite(kl):
            self.controller.update(kl, completions)
            self._apply()
        else:
            logger.warning("step %d: the KL is %s, and the KL coefficient stays as it is", state.global_step, kl)
        logs.update(told)
        state.log_history[-1].update(told)

    def _completions_per_step(self, args: Any) -> int:
        """Completions that are new in one optimiser step, over all ranks; each is used ``num_iterations`` times."""
        used = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        return max(1, used // getattr(args, "num_iterations", 1))


def use_kl_control(trainer: Any, controller: FixedKL | AdaptiveKL, *, unit: KLPer = "sequence") -> KLCallback:
    """Let a controller set the KL coefficient ``beta`` of a GRPO or RLOO trainer, from its first step on.

    The KL is the one TRL logs: per completion token, k3 under GRPO, k1 under RLOO. The coefficient moves when TRL logs,
    by as many completions as were new since: ``logging_steps=1`` moves it at every step. Logged beside TRL's ``kl``:
    ``kl_coef``, the coefficient that was in force; of an adaptive controller also ``kl_target``, and
    ``kl_per_sequence`` or ``kl_per_token``, which is what it compared.

    Args:
        trainer: The trainer, made with a ``beta`` that is not 0 (which one does not matter).
        controller: A :class:`~rewardlab.rewards.kl.FixedKL` or :class:`~rewardlab.rewards.kl.AdaptiveKL`.
        unit: What the controller's target is the mean over: ``"sequence"``, nats per completion, where TRL's KL is
            multiplied by the mean number of completion tokens; or ``"token"``, as TRL logs it.

    Returns:
        The callback, already added to the trainer. Its state is in every checkpoint and is restored on resume.

    Raises:
        ConfigError: Another trainer; ``beta`` 0, for which TRL loads no reference model; a coefficient of 0; a loss
            that took ``beta`` in when the trainer was made.
    """
    _require_rl_trainer(trainer, "KL control")
    if unit not in ("token", "sequence"):
        raise ConfigError(f"there is no unit {unit!r}", hint="token or sequence")
    if trainer.beta == 0:
        raise ConfigError(
            "beta is 0, so the trainer has no reference model and measures no KL",
            hint="make the trainer with a beta that is not 0; the controller then sets it",
        )
    if controller.value == 0:
        raise ConfigError("a KL coefficient of 0 ends the measuring of KL", hint="leave KL control out")
    if hasattr(trainer, "liger_grpo_loss") or hasattr(trainer, "liger_loss"):
        raise ConfigError(
            "Liger's loss took beta in when the trainer was made, and would not see it change",
            hint="make the trainer without Liger's loss",
        )
    callback = KLCallback(trainer, controller, unit)
    _add(trainer, callback)
    return callback


def keep_reward_state(trainer: Any) -> RewardStateCallback:
    """Keep the running statistics of a trainer's reward functions in its checkpoints, and restore them on resume.

    Call it after the trainer is made and before ``trainer.train()``.

    Args:
        trainer: A GRPO or RLOO trainer; those of its reward functions count that have ``state_dict`` and
            ``load_state_dict``, and those that a :class:`~rewardlab.rewards.combining.CombinedReward` asks.

    Raises:
        ConfigError: Another trainer, or two of them have one name.
    """
    _require_rl_trainer(trainer, "reward state")
    functions: dict[str, HasState] = {}
    for name, function in zip(trainer.reward_func_names, trainer.reward_funcs, strict=True):
        for full_name, one in _with_parts(name, function):
            if not isinstance(one, HasState) or isinstance(one, torch.nn.Module):
                continue
            if full_name in functions:
                raise ConfigError(f"two reward functions are called {full_name!r}", hint="give each its own name=")
            functions[full_name] = one
    callback = RewardStateCallback(functions)
    _add(trainer, callback)
    return callback


def _with_parts(name: str, function: Any) -> Iterator[tuple[str, Any]]:
    """A reward function, and those that it asks, at any depth."""
    yield name, function
    for part in function.parts if isinstance(function, CombinedReward) else ():
        yield from _with_parts(f"{name}/{part.name}", part.function)


def keeps_reward_state(trainer: Any, function: object) -> bool:
    """Whether a trainer's checkpoints keep the state of a reward function."""
    handler = getattr(trainer, "callback_handler", None)
    callbacks = [c for c in getattr(handler, "callbacks", ()) if isinstance(c, RewardStateCallback)]
    return any(kept is function for callback in callbacks for kept in callback.functions.values())


def _require_rl_trainer(trainer: Any, what: str) -> None:
    from trl import GRPOTrainer, RLOOTrainer

    if not isinstance(trainer, GRPOTrainer | RLOOTrainer):
        raise ConfigError(
            f"{what} is for TRL's GRPOTrainer and RLOOTrainer, got {type(trainer).__name__}",
            hint="other trainers' beta, if they have one, is another thing",
        )


def _add(trainer: Any, callback: _KeptState) -> None:
    """Add a callback before all others, so that loggers see what it adds to the logs."""
    if any(type(other) is type(callback) for other in trainer.callback_handler.callbacks):
        raise ConfigError(f"the trainer has a {type(callback).__name__} already", hint="add it once")
    if trainer.args.restore_callback_states_from_checkpoint:
        raise ConfigError(
            "restore_callback_states_from_checkpoint makes callbacks anew from JSON, and this one holds the trainer",
            hint="leave it out: the state of this callback is restored without it",
        )
    trainer.add_callback(callback)
    callbacks = trainer.callback_handler.callbacks
    callbacks.insert(0, callbacks.pop())
