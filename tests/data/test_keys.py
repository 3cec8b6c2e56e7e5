"""Keys of texts: what counts as the same, by hand."""

from __future__ import annotations

from rewardlab import types
from rewardlab.data.check import check_groups
from rewardlab.data.keys import comparisons, keyed
from rewardlab.types import Pair, PromptGroup


def test_what_renders_alike_has_one_key_and_rows_without_a_prompt_are_a_unit_each():
    message = ({"role": "user", "content": "p"},)
    rows = keyed([PromptGroup("p", ("a", "b")), PromptGroup(message, ("b",)), *[PromptGroup("", ("a",))] * 2])
    assert rows[0].prompt == rows[1].prompt == rows[0].unit == rows[1].unit
    assert rows[0].completions[1] == rows[1].completions[0]
    assert rows[2].prompt == rows[3].prompt
    assert len({row.unit for row in rows}) == 3


def test_comparisons_are_all_pairs_of_different_texts():
    group = PromptGroup("p", ("a", "b", "a"), (Pair(0, 1), Pair(0, 2), Pair(1, 2, tie=True)))
    a, b, _ = keyed([group])[0].completions
    assert [(pair, one, other) for _, pair, one, other in comparisons(keyed([group]))] == [
        (group.pairs[0], a, b),
        (group.pairs[2], b, a),
    ]


def test_a_check_makes_the_key_of_each_text_once(monkeypatch):
    made = []

    def counting(text, *, role):
        made.append(text)
        return original(text, role=role)

    original = types.text_key
    monkeypatch.setattr("rewardlab.types.text_key", counting)
    check_groups([PromptGroup(f"p{n}", ("a", f"b{n}"), (Pair(),)) for n in range(10)])
    assert len(made) == 30
