"""config.build: precedence, strict types and errors that name file, line, key and the fix."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardlab.config import _load, build
from rewardlab.errors import ConfigError


class Pooling(enum.Enum):
    LAST = "last"
    MEAN = "mean"


@dataclass
class Optimizer:
    name: Literal["adamw", "sgd"] = "adamw"
    beta: float = 0.9


@dataclass
class Base:
    output: str
    seed: int = 42


@dataclass
class Run(Base):
    learning_rate: float = 1e-5
    bf16: bool | None = None
    data: Path | None = None
    tags: list[str] = field(default_factory=list)
    betas: tuple[float, float] = (0.9, 0.999)
    pooling: Pooling = Pooling.LAST
    kwargs: dict[str, int] | None = None
    optimizer: Optimizer = field(default_factory=lambda: Optimizer(beta=0.5))
    second: Optimizer | None = None
    steps: int | str = 10
    exotic: Any = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed must be at least 0, got {self.seed}")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refused(*, recipe: Path | None = None, overrides: tuple[str, ...] = (), **explicit: Any) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build(Run, recipe=recipe, overrides=("output=x", *overrides), explicit=explicit)
    return caught.value


def test_each_source_wins_over_the_ones_before_it(tmp_path):
    recipe = write(tmp_path, "output: recipe\nseed: 1\nlearning_rate: 0.1\n")
    assert build(Run, recipe=recipe) == Run(output="recipe", seed=1, learning_rate=0.1)
    run = build(Run, recipe=recipe, overrides=["seed=2", "learning_rate=0.2"], explicit={"learning_rate": 0.3})
    assert (run.output, run.seed, run.learning_rate, run.steps) == ("recipe", 2, 0.3, 10)
    assert build(Run, recipe=recipe, overrides=["seed=2", "seed=3"]).seed == 3


def test_an_option_that_is_none_was_not_given(tmp_path):
    assert build(Run, recipe=write(tmp_path, "output: x\nseed: 1"), explicit={"seed": None}).seed == 1


def test_an_empty_recipe_changes_nothing(tmp_path):
    assert build(Run, recipe=write(tmp_path, "# nothing\n"), overrides=["output=x"]) == Run(output="x")


@pytest.mark.parametrize("spelling", ["1e-5", "1E-5", "1.0e-5", "0.00001", "1.e-5", "'1e-5'"])
def test_a_learning_rate_is_a_number_however_it_is_spelled(tmp_path, spelling):
    """YAML 1.1, which PyYAML follows, reads 1e-5 as text."""
    assert build(Run, recipe=write(tmp_path, f"output: x\nlearning_rate: {spelling}")).learning_rate == 1e-5
    assert build(Run, overrides=["output=x", f"learning_rate={spelling}"]).learning_rate == 1e-5


def test_an_integer_serves_as_a_number_and_becomes_one():
    value = build(Run, overrides=["output=x", "learning_rate=1"]).learning_rate
    assert value == 1.0
    assert isinstance(value, float)


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("bf16=true", "bf16", True),
        ("bf16=null", "bf16", None),
        ("data=pairs.jsonl", "data", Path("pairs.jsonl")),
        ("tags=[a, b]", "tags", ["a", "b"]),
        ("betas=[0.8, 1]", "betas", (0.8, 1.0)),
        ("pooling=mean", "pooling", Pooling.MEAN),
        ("kwargs={cycles: 2}", "kwargs", {"cycles": 2}),
        ("steps=20", "steps", 20),
        ("steps=all", "steps", "all"),
        ("exotic={a: [1]}", "exotic", {"a": [1]}),
        ("output=123", "output", "123"),
        ("output=a=b: [", "output", "a=b: ["),
        ("output=yes", "output", "yes"),
    ],
)
def test_an_override_is_read_as_its_field_asks(override, name, value):
    got = getattr(build(Run, overrides=["output=x", override]), name)
    assert got == value
    assert type(got) is type(value)


def test_nested_dataclasses_by_mapping_and_by_dotted_key_keep_the_other_fields(tmp_path):
    recipe = write(tmp_path, "output: x\noptimizer:\n  name: sgd\n")
    assert build(Run, recipe=recipe).optimizer == Optimizer("sgd", 0.5), "the field's own default has beta 0.5"
    assert build(Run, recipe=recipe, overrides=["optimizer.beta=0.1"]).optimizer == Optimizer("sgd", 0.1)
    assert build(Run, recipe=recipe, overrides=["optimizer={beta: 0.1}"]).optimizer == Optimizer("sgd", 0.1)
    assert build(Run, recipe=recipe, explicit={"second.beta": 0.2}).second == Optimizer("adamw", 0.2)


def test_null_for_an_optional_dataclass_and_back_again():
    overrides = ["output=x", "second.beta=0.2", "second=null"]
    assert build(Run, overrides=overrides).second is None
    assert build(Run, overrides=[*overrides, "second.name=sgd"]).second == Optimizer("sgd", 0.9)


@pytest.mark.parametrize(
    ("override", "message", "hint"),
    [
        ("seed=1.0", "--set seed=1.0: seed must be an integer, got the number 1.0", "write 1"),
        ("seed=true", "--set seed=true: seed must be an integer, got true", ""),
        ("seed=", "--set seed=: seed must be an integer, got null", ""),
        ("learning_rate=false", "--set learning_rate=false: learning_rate must be a number, got false", ""),
        (f"learning_rate=1{'0' * 400}", "learning_rate must be a number", ""),
        ("bf16=yes", "bf16 must be true or false or null, got the text 'yes'", ""),
        ("bf16=1", "bf16 must be true or false or null, got the number 1", ""),
        ("tags=a", "tags must be a list of (text), got the text 'a'", "write a list as [a, b]"),
        ("tags=[1]", "tags must be a list of (text), got a list", ""),
        ("betas=[1]", "betas must be a list of (a number, a number), got a list", ""),
        ("pooling=meen", "pooling must be one of last, mean, got the text 'meen'", "did you mean 'mean'?"),
        ("optimizer.name=adam", "must be one of adamw, sgd, got the text 'adam'", "did you mean 'adamw'?"),
        ("optimizer=adamw", "optimizer must be a mapping, got the text 'adamw'", ""),
        ("kwargs={a: b}", "kwargs must be a mapping or null, got a mapping", ""),
        ("sead=1", "--set sead=1: unknown key 'sead'", "did you mean 'seed'?"),
        ("optimizer.betta=1", "unknown key 'optimizer.betta'", "did you mean 'beta'?"),
        ("zzz=1", "unknown key 'zzz'", "the keys are the fields of Run"),
        ("seed.low=1", "--set seed.low=1: seed has no keys of its own", "give seed one whole value"),
        ("seed", "--set seed: expected key=value", "for example --set learning_rate=1e-5"),
        ("seed=-1", "Run: seed must be at least 0, got -1", ""),
    ],
)
def test_a_bad_override_says_what_came_what_was_expected_and_the_fix(override, message, hint):
    error = refused(overrides=(override,))
    assert message in error.message
    assert hint in error.hint


def test_an_option_is_named_as_the_user_wrote_it():
    assert refused(learning_rate="fast").message.startswith("--learning-rate: learning_rate must be a number")


def test_what_is_required_is_asked_for():
    with pytest.raises(ConfigError, match="output must be given"):
        build(Run)


def test_merged_keys_may_be_merged_again_and_overridden():
    """PyYAML writes what is merged into the mapping that it is merged into, whichever of two is made first."""
    _, found = _load("base: &b {lr: 1}\nx:\n  a: &a {<<: *b, lr: 2}\ny: {<<: *a}\n")
    assert found == {"base": {"lr": 1}, "x": {"a": {"lr": 2}}, "y": {"lr": 2}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nlearning_rate: abc\n", ":2: learning_rate must be a number, got the text 'abc'"),
        ("seed: 1\noptimizer:\n  beta: x\n", ":3: optimizer.beta must be a number"),
        ("output: 3\n", ":1: output must be text, got the number 3"),
        ("sede: 1\n", ":1: unknown key 'sede'"),
        ("seed: 010\n", ":1: seed must be an integer, got the text '010'"),
        ("seed: 1\nseed: 2\n", ":2: not a YAML recipe: the key 'seed' comes twice"),
        ("seed: [1\n", "not a YAML recipe"),
        ("- 1\n", "expected a mapping of keys to values, got a list"),
        ("seed: 1\n---\nseed: 2\n", "not a YAML recipe"),
        ("[a]: 1\n", "not a YAML recipe: found unhashable key"),
        ("output: \x07\n", "not a YAML recipe"),
        (
            "seed: !!python/object/apply:os.getcwd []\n",
            "not a YAML recipe: the tag 'tag:yaml.org,2002:python/object/apply:os.getcwd' is not read",
        ),
    ],
)
def test_a_bad_recipe_is_refused_with_file_and_line(tmp_path, text, message):
    recipe = write(tmp_path, text)
    error = refused(recipe=recipe)
    assert error.message.startswith(str(recipe))
    assert message in error.message


def test_a_recipe_that_cannot_be_read(tmp_path):
    assert "cannot be read: No such file" in refused(recipe=tmp_path / "none.yaml").message
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"output: \xe9\n")
    assert "it is not UTF-8 text" in refused(recipe=latin).message


def test_a_bug_in_a_dataclass_is_not_told_as_bad_usage():
    @dataclass
    class Broken:
        size: int = 1

        def __post_init__(self) -> None:
            raise KeyError("size")

    with pytest.raises(KeyError):
        build(Broken)


plain_text = st.text(st.characters(exclude_categories=("Cs", "Cc")))
numbers = st.floats(allow_nan=False, allow_infinity=False)
runs = st.builds(
    Run,
    output=plain_text,
    seed=st.integers(min_value=0),
    learning_rate=numbers,
    bf16=st.none() | st.booleans(),
    tags=st.lists(plain_text),
    betas=st.tuples(numbers, numbers),
    kwargs=st.none() | st.dictionaries(plain_text, st.integers()),
    optimizer=st.builds(Optimizer, name=st.sampled_from(["adamw", "sgd"]), beta=numbers),
    second=st.none() | st.builds(Optimizer, beta=numbers),
    steps=st.integers() | plain_text,
)


def as_json(run: Run) -> dict[str, str]:
    """Every field as JSON text, which is YAML with all its text in quotes: an independent writer."""
    values = {name: value for name, value in vars(run).items() if name not in ("data", "pooling", "exotic")}
    texts = {name: json.dumps(value, default=vars, ensure_ascii=False) for name, value in values.items()}
    # YAML escapes a character beyond U+FFFF as Python does, and not as JSON's pair of surrogates.
    return {name: text.encode("ascii", "backslashreplace").decode() for name, text in texts.items()}


@given(run=runs)
def test_every_value_comes_back_through_a_recipe_and_through_overrides(tmp_path_factory, run):
    recipe = tmp_path_factory.mktemp("config") / "recipe.yaml"
    recipe.write_text("\n".join(f"{name}: {text}" for name, text in as_json(run).items()), encoding="utf-8")
    assert build(Run, recipe=recipe) == run
    assert build(Run, overrides=[f"{name}={text}" for name, text in as_json(run).items()]) == run


@given(value=numbers)
def test_every_float_comes_back_from_its_shortest_spelling(value):
    assert build(Optimizer, overrides=[f"beta={value!r}"]).beta == value


@given(
    word=st.sampled_from(["null", "true", "~", "1e-5", "0x1f", "[a"]) | st.from_regex(r"\A[a-z0-9_./][a-z0-9_./-]*\Z")
)
def test_a_text_field_takes_a_word_as_it_was_written(word):
    assert build(Base, overrides=[f"output={word}"]).output == word


@given(name=st.sampled_from(["learning_rate", "optimizer", "betas", "pooling"]), drop=st.integers(0, 4))
def test_a_key_with_one_letter_lost_names_the_right_one(name, drop):
    wrong = name[:drop] + name[drop + 1 :]
    assert refused(overrides=(f"{wrong}=1",)).hint == f"did you mean {name!r}?"


def test_training_arguments_with_its_many_fields(tmp_path):
    """The class whose config this exists for: inherited fields, unions, enums given as text."""
    from transformers import TrainingArguments

    recipe = write(tmp_path, "learning_rate: 1e-5\nsave_strategy: no\nlr_scheduler_kwargs: {num_cycles: 2}\n")
    arguments = build(
        TrainingArguments,
        recipe=recipe,
        overrides=["lr_scheduler_type=cosine", "report_to=none", "use_cpu=true"],
        explicit={"output_dir": str(tmp_path), "max_steps": 3},
    )
    assert arguments.learning_rate == 1e-5
    assert arguments.save_strategy == "no"
    assert arguments.lr_scheduler_type == "cosine"
    assert arguments.lr_scheduler_kwargs == {"num_cycles": 2}
    assert arguments.max_steps == 3
    with pytest.raises(ConfigError, match="TrainingArguments: cosin is not a valid SchedulerType"):
        build(TrainingArguments, overrides=["lr_scheduler_type=cosin", f"output_dir={tmp_path}"])
