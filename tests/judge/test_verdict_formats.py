"""How verdicts are asked for: every format says its form, and a schema puts the reason before the verdict."""

import pytest

from rewardlab.judge.verdict_formats import MODES, VerdictSpec, instruction, schema

MODE_FORMATS = [(form, mode) for form, modes in MODES.items() for mode in modes]


@pytest.mark.parametrize(("form", "mode"), MODE_FORMATS)
def test_the_words_that_ask_name_what_is_read(form, mode):
    words = instruction(VerdictSpec(mode, form, nonce="00ff00ff00ff00ff", count=3, scale=(1, 7)))
    named = {
        "json": "JSON object", "tagged": "VERDICT-00ff00ff00ff00ff:", "double_bracket": "[[A]]", "result": "[RESULT]",
        "number": "last line", "llmbar": "Output (a) is better", "two_scores": "first line",
        "mr_gsm8k": "First Error Step",
    }  # fmt: skip
    assert named[form] in words
    assert "{" not in words or form == "json"
    if mode == "rating":
        assert "from 1 to 7" in words


@pytest.mark.parametrize("form", ["json", "tagged", "double_bracket"])
def test_ties_are_offered_only_where_they_count(form):
    with_ties, without = (instruction(VerdictSpec("pairwise", form, "n", ties=ties)) for ties in (True, False))
    assert any(word in with_ties for word in ("tie", "equally good"))
    assert not any(word in without for word in ("tie", "equally good", "[[C]]"))


@pytest.mark.parametrize("mode", MODES["json"])
def test_a_schema_is_strict_and_asks_for_the_reason_before_the_verdict(mode):
    found = schema(VerdictSpec(mode, "json", nonce="00ff00ff00ff00ff", count=3))
    assert list(found["properties"])[:2] == ["id", "reason"]
    assert found["properties"]["id"]["enum"] == ["00ff00ff00ff00ff"]
    assert '{"id": "00ff00ff00ff00ff", "reason"' in instruction(VerdictSpec(mode, "json", "00ff00ff00ff00ff", count=3))
    assert found["required"] == list(found["properties"])
    assert found["additionalProperties"] is False


def test_a_schema_lists_what_may_be_said():
    assert schema(VerdictSpec("pairwise", "json", ties=False))["properties"]["verdict"]["enum"] == ["A", "B"]
    assert schema(VerdictSpec("rating", "json", scale=(1, 3)))["properties"]["rating"]["enum"] == [1, 2, 3]
    assert schema(VerdictSpec("listwise", "json", count=3))["properties"]["ranking"]["items"]["items"]["enum"] == list(
        "ABC"
    )
