"""What OpenRLHF's `--reward.remote_url` points to: a reward model from rewardlab. Copy it, and put in your own paths.

REWARD_MODEL=runs/rm POLICY=models/sft python3 -m openrlhf.cli.train_ppo_ray ... \
    --reward.remote_url examples/openrlhf_reward.py
"""

import os

from rewardlab.adapters.openrlhf import make_reward_func

reward_func = make_reward_func(
    os.environ["REWARD_MODEL"],
    policy=os.environ["POLICY"],  # its chat template wrote the prompts; its special tokens end the responses
    unscored=-10.0,  # of a response that does not fit the reward model's maximum length
)
