from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.calibration import ReferenceStatistics
from rewardlab.errors import ConfigError
from rewardlab.rewards import PRESETS, Center, Clip, Delta, Group, MissingEos, RefScale, Running, Temperature
from rewardlab.rewards.configuration import configuration_of, transforms_from
from rewardlab.rewards.entries import Known

NOTHING = Known()
MODEL = Known(ReferenceStatistics("held-out", 10, 1.5, 2.5, {}), temperature=0.75)


def test_a_list_of_names_and_options():
    transforms = transforms_from(["delta", {"clip": {"limit": 5}}, {"running": None}], NOTHING)
    assert transforms == [Delta(), Clip(5.0), Running()]
    assert isinstance(transforms[1].limit, float)


def test_a_yaml_file_with_the_numbers_of_yaml_1_2(tmp_path):
    path = tmp_path / "chain.yaml"
    path.write_text("transforms:\n  - delta: {optional: true}\n  - group: {eps: 1e-9, scale: batch}\n  - clip\n")
    expected = [Delta(True), Group("batch", eps=1e-9), Clip()]
    assert transforms_from(path, NOTHING) == transforms_from(str(path), NOTHING) == expected


@pytest.mark.parametrize("name", PRESETS)
def test_presets_go_there_and_back(name):
    transforms = transforms_from(name, NOTHING)
    assert configuration_of(transforms) == PRESETS[name]
    assert transforms_from(configuration_of(transforms), NOTHING) == transforms


def test_what_the_contract_says_is_filled_in_and_written_down():
    spec = [{"center": {"by": "reference"}}, {"ref": {"source": "contract", "shift_mean": True}}, "temperature"]
    transforms = transforms_from(spec, MODEL)
    ref = RefScale("contract", mean=1.5, std=2.5, shift_mean=True)
    assert transforms == [Center("reference", 1.5), ref, Temperature(0.75)]
    assert transforms_from(configuration_of(transforms), NOTHING) == transforms


def test_numbers_of_another_model_are_refused():
    other = dataclasses.replace(MODEL, reference=ReferenceStatistics("held-out", 10, 0.0, 1.0, {}))
    written = configuration_of(transforms_from([{"ref": {"source": "contract"}}], MODEL))
    with pytest.raises(ConfigError, match="and the reference set's is"):
        transforms_from(written, other)


@given(
    st.lists(
        st.one_of(
            st.builds(Clip, st.floats(0.001, 100)),
            st.builds(Group, st.sampled_from(["group", "batch", "none"]), eps=st.floats(1e-9, 1)),
            st.builds(MissingEos, st.floats(0, 10)),
            st.builds(Temperature, st.floats(0.01, 10)),
            st.builds(RefScale, std=st.floats(0.1, 10), mean=st.floats(-5, 5), shift_mean=st.booleans()),
        )
    )
)
def test_a_configuration_gives_the_transforms_it_came_from(transforms):
    assert transforms_from(configuration_of(transforms), NOTHING) == transforms


@pytest.mark.parametrize(
    ("spec", "message", "hint"),
    [
        ("trlxx", "no preset 'trlxx'", "did you mean 'trlx'"),
        ("nonsense", "no preset", "the presets are default, trl"),
        (3, "got a int", "for example"),
        (["clp"], r"transforms\[0\]: there is no transform 'clp'", "did you mean 'clip'"),
        (["clip", "zzz"], r"transforms\[1\]: there is no transform", "the transforms are center"),
        ([{"clip": {}, "delta": {}}], "one name with its options", "for example"),
        ([{"clip": {"limt": 1}}], "clip has no option 'limt'", "did you mean 'limit'"),
        ([{"clip": 3}], "options must be a mapping, got 3", "write clip: {limit: ...}"),
        ([{"clip": {"limit": "10"}}], "limit must be a number, got '10'", ""),
        ([{"clip": {"limit": True}}], "limit must be a number, got True", ""),
        ([{"clip": {"limit": -1}}], "limit must be a number above 0, got -1.0", ""),
        ([{"clip": {"limit": 10**400}}], "limit is larger than any float", ""),
        ([{"delta": {"optional": 1}}], "optional must be true or false", ""),
        ([{"group": {"scale": "batc"}}], "scale cannot be 'batc'", "did you mean 'batch'"),
        ([{"group": {"scale": "std"}}], "scale cannot be 'std'", "it can be group, batch, none"),
        (["missing_eos"], "penalty must be given", "write missing_eos: {penalty: 1.0}"),
        (["temperature"], "no value is given", "temperature=contract.temperature"),
        ([{"ref": {"source": "contract"}}], "the model has none", "rewardlab calibrate"),
        ([{"center": {"by": "reference"}}], "the model has none", "rewardlab calibrate"),
    ],
)
def test_errors_name_the_place_and_the_nearest_name(spec, message, hint):
    with pytest.raises(ConfigError, match=message) as error:
        transforms_from(spec, NOTHING)
    assert hint in error.value.hint


def test_errors_of_a_file_name_the_file(tmp_path):
    path = tmp_path / "chain.yaml"
    path.write_text("transforms: [runing]\n")
    with pytest.raises(ConfigError, match=r"chain\.yaml: transforms\[0\]: there is no transform 'runing'"):
        transforms_from(path, NOTHING)
    path.write_text("transform: [running]\n")
    with pytest.raises(ConfigError, match=r"chain\.yaml:1: unknown key 'transform'") as error:
        transforms_from(path, NOTHING)
    assert "'transforms'" in error.value.hint
    with pytest.raises(ConfigError, match="cannot be read"):
        transforms_from(tmp_path / "none.yaml", NOTHING)
