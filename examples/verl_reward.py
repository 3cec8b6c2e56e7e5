"""What verl's `reward.custom_reward_function.path` points to: a reward model from rewardlab.

    python3 -m verl.trainer.main_ppo ... \
        reward.custom_reward_function.path=examples/verl_reward.py \
        reward.custom_reward_function.name=compute_score_async \
        +reward.custom_reward_function.reward_kwargs.scorer=runs/rm \
        +reward.custom_reward_function.reward_kwargs.prompt_key=question \
        +reward.custom_reward_function.reward_kwargs.unscored=-10.0

Each row's `extra_info` must hold the prompt, as text or messages: write it there when the data is prepared.
"""

from rewardlab.adapters.verl import compute_score, compute_score_async

__all__ = ["compute_score", "compute_score_async"]
