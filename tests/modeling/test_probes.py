"""The probes: enough of them, one truncated, those a template refuses left out."""

from __future__ import annotations

from transformers import PreTrainedTokenizerFast

from rewardlab.data.encoding import Encoder
from rewardlab.data.template import seal_chat_template
from rewardlab.modeling.probes import probe_groups


def test_probes_vary_in_length_and_one_is_truncated(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    seal_chat_template(chat_tokenizer)
    encoder = Encoder(chat_tokenizer, 512)
    encoded = [encoder.encode(group) for group in probe_groups(encoder)]
    lengths = [e.lengths[0] for e in encoded]
    assert len(encoded) == 10
    assert min(lengths) * 5 < max(lengths)
    assert sum(e.truncated for e in encoded) == 1


def test_a_template_without_system_role_leaves_that_probe_out(chat_tokenizer: PreTrainedTokenizerFast) -> None:
    chat_tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
        + str(chat_tokenizer.chat_template)
    )
    seal_chat_template(chat_tokenizer)
    groups = probe_groups(Encoder(chat_tokenizer, 4096))
    assert len(groups) == 8  # ten, less the system turn, less the one to truncate (the limit is too high for it)
    assert all(message["role"] != "system" for group in groups for message in group.prompt)
