"""slime's ``/get_reward``: one prompt and response; the answer's whole body is the reward, one number.

slime sends what its sample has: a prompt that it rendered itself, plain text, or messages. ``--reward-key`` must not be
set, for it reads a field of the answer.

References:
    slime, ``slime/rollout/rm_hub/__init__.py`` (``remote_rm``).
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from rewardlab.serving.items import Continued
from rewardlab.serving.protocols.dialect import Dialect, Json, OpenModel
from rewardlab.serving.protocols.vllm import message_of
from rewardlab.serving.protocols.vllm_bodies import Turn
from rewardlab.serving.service import Service

DIALECT = Dialect(
    "slime",
    ("POST /get_reward",),
    "The score on the server's --scale; the body is the number.",
    "A prompt that is rendered must be so by this model's own chat template. Leave --reward-key unset.",
)


class SampleRequest(OpenModel):
    """A prompt and the response to it."""

    prompt: str | list[Turn] = Field(description="Rendered text, plain text (one user turn), or messages.")
    response: str = Field(description="What was generated, with or without the end token.")
    label: Any = Field(None, description="Not read.")


async def answer_get_reward(service: Service, body: SampleRequest) -> Json:
    """``/get_reward``."""
    prompt = body.prompt if isinstance(body.prompt, str) else tuple(message_of(message) for message in body.prompt)
    return Json((await service.scores([Continued(prompt, body.response)])).values[0])
