"""Prompts: every built-in one can be asked, and a file that could not be is refused before anything is paid for."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest

from rewardlab.errors import ConfigError
from rewardlab.judge.prompts import PROMPTS, SHOWN, JudgePrompt, load_prompt

BUILT_IN = [(name, mode) for name, modes in PROMPTS.items() for mode in modes]


@pytest.mark.parametrize(("name", "mode"), BUILT_IN)
def test_a_built_in_prompt_loads(name, mode):
    prompt = load_prompt(name, mode)
    assert (prompt.name, prompt.mode) == (name, mode)


def test_every_prompt_file_is_used():
    there = {Path(str(path)).name for path in (files("rewardlab.judge") / "prompt_files").iterdir()}
    assert there == {name for modes in PROMPTS.values() for name in modes.values()}


@pytest.mark.parametrize("mode", SHOWN)
def test_our_own_prompts_instruct_against_the_known_biases(mode):
    prompt = load_prompt(mode, mode)
    for words in ("length", "material to judge", "reasons briefly first", "last"):
        assert words in prompt.system.lower().replace("verdict last", "last")
    if mode != "steps":
        assert "chance" in prompt.system or mode == "rating"  # the order
        assert "as you would have written it" in prompt.system  # self-preference
        assert "bold type" in prompt.system  # formatting


@pytest.mark.parametrize(("name", "mode"), BUILT_IN)
def test_every_prompt_instructs_against_length_place_and_self_preference(name, mode):
    prompt = load_prompt(name, mode)
    words = " ".join((prompt.system + prompt.user).split()).lower()
    assert "length" in words
    assert "material to judge" in words
    if mode != "steps":
        assert "would have written" in words or "could have written" in words
    if mode in ("pairwise", "listwise"):
        assert "order in which" in words or "which completion stands first is chance" in words


@pytest.mark.parametrize("mode", ["listwise", "steps"])
def test_a_reference_is_for_comparisons_and_ratings_alone(mode):
    prompt = load_prompt(mode, mode)
    with pytest.raises(ValueError, match=f"{{reference}} is no placeholder of the mode '{mode}'"):
        replace(prompt, user=prompt.user + "{reference}")


def test_the_styles_have_their_originals_verdicts():
    forms = {name: load_prompt(name, mode) for name, mode in BUILT_IN}
    assert (forms["mt-bench"].verdict, forms["mt-bench"].ties) == ("double_bracket", True)
    assert (forms["rewardbench"].verdict, forms["rewardbench"].ties) == ("double_bracket", False)
    assert (forms["rewardbench-2"].verdict, forms["rewardbench-2"].scale) == ("number", (1, 10))
    assert load_prompt("prometheus", "pairwise").verdict == "result"
    assert load_prompt("prometheus", "rating").scale == (1, 5)


FILE = """
name: mine
mode: pairwise
user: |
  {prompt} {completion_a} {completion_b}
  Answer like {"verdict": 1} or { this }.
  {verdict_instruction}
"""


def written(folder, text):
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_a_prompt_and_other_braces_are_text(tmp_path):
    prompt = load_prompt(written(tmp_path, FILE), "pairwise")
    assert prompt.name == "mine"
    assert load_prompt(str(tmp_path / "mine.yaml"), "pairwise").sha256 == prompt.sha256
    assert replace(prompt, ties=False).sha256 != prompt.sha256


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("{completion_a}", "{completion_A}"), "did you mean {completion_a}?"),
        (("{completion_b}", ""), "show no {completion_b}"),
        (("{prompt}", "{0}"), "show no {prompt}"),
        (("{verdict_instruction}", ""), "{verdict_instruction}"),
        (("{verdict_instruction}", "{verdict_instruction} {rubric}"), "{rubric} and the key rubric go together"),
        (("mode: pairwise", "mode: pairwise\nrubric: x"), "{rubric} and the key rubric go together"),
        (("mode: pairwise", "mode: pairwise\nverdict: number"), "cannot say what the mode 'pairwise' asks"),
        (("mode: pairwise", "mode: pairwise\nverdict: result"), "expected ties: false"),
        (("mode: pairwise", "mode: pairwise\nverdict: brackets"), "brackets"),
        (("mode: pairwise", "mode: pairwise\nscale: [5, 1]"), "0 <= lowest < highest"),
        (("mode: pairwise", "mode: pairwise\ntemperature: 1"), "unknown key 'temperature'"),
        (("name: mine", ""), "name must be given"),
        ((FILE, "- a list"), "expected a mapping"),
    ],
)
def test_a_file_that_cannot_be_asked_is_refused(tmp_path, change, told):
    path = written(tmp_path, FILE.replace(*change))
    with pytest.raises(ConfigError) as caught:
        load_prompt(path, "pairwise")
    assert told in str(caught.value)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("name", "mode", "told"),
    [
        ("mt-bench", "rating", "for the mode pairwise, not for rating"),
        ("mtbench", "pairwise", "did you mean mt-bench?"),
        ("none.yaml", "pairwise", "none.yaml"),
    ],
)
def test_a_prompt_that_is_not_there_is_named(name, mode, told):
    with pytest.raises(ConfigError) as caught:
        load_prompt(name, mode)
    assert told in str(caught.value)


def test_a_file_of_another_mode_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="expected a prompt of the mode 'rating', got 'pairwise'"):
        load_prompt(written(tmp_path, FILE), "rating")


def test_auto_is_json_where_the_server_keeps_to_a_schema():
    prompt = load_prompt("pairwise", "pairwise")
    assert (prompt.format_for(True), prompt.format_for(False)) == ("json", "tagged")
    assert JudgePrompt.format_for(load_prompt("mt-bench", "pairwise"), True) == "double_bracket"
