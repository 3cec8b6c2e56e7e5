"""The settings a run starts from, one row per mode, each with its reason. ``docs/presets.md`` shows this table.

What one epoch over preferences wants differs by what is trained: whole pretrained decoders move little, adapters need
ten times the step, encoders are small and want a longer warm-up, a head alone is a logistic regression. Every value can
be overridden.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Preset:
    """Defaults of one mode.

    Attributes:
        learning_rate: Peak learning rate.
        warmup: Share of the steps over which the learning rate rises from 0.
        max_length: Longest sequence in tokens; the model's own limit where that is shorter.
        batch_size: Groups per optimiser step on one device.
        precision: What the forward computes in: ``"auto"`` is bfloat16 autocast where the hardware is faster at it.
        reason: Why these.
    """

    learning_rate: float
    warmup: float
    max_length: int
    batch_size: int
    precision: str
    reason: str


PRESETS: dict[str, Preset] = {
    "full": Preset(
        learning_rate=1e-5,
        warmup=0.03,
        max_length=2048,
        batch_size=64,
        precision="auto",
        reason="Llama 2 (arXiv:2307.09288, 3.2.2) and InstructGPT (arXiv:2203.02155, C.2) train whole reward models at "
        "5e-6 to 1.5e-5 with about 64 prompts a step, 3 % warm-up and one epoch",
    ),
    "lora": Preset(
        learning_rate=1e-4,
        warmup=0.03,
        max_length=2048,
        batch_size=64,
        precision="auto",
        reason="adapters want about ten times the full rate; TRL's reward trainer uses 1e-4",
    ),
    "encoder": Preset(
        learning_rate=1e-4,
        warmup=0.1,
        max_length=512,
        batch_size=16,
        precision="auto",
        reason="twice the top of BERT's range (2e-5 to 5e-5, 10 % warm-up: arXiv:1810.04805, A.3), since encoders are "
        "small and so are the sets they are trained on: one epoch is often under 100 steps; most have 512 positions",
    ),
    "head_only": Preset(
        learning_rate=1e-3,
        warmup=0.0,
        max_length=2048,
        batch_size=64,
        precision="auto",
        reason="a logistic regression on fixed features: convex, so a large step is safe and a warm-up is not needed",
    ),
}
