"""Code that is right, wrong, endless, greedy or up to no good, and real solutions with their recorded verdicts."""

from __future__ import annotations

import gzip
import json
import os
import time

import pytest

from rewardlab.errors import ConfigError, DataError, RewardLabError
from rewardlab.rewards.unit_tests import passes_unit_tests

TESTS = ["assert f(1) == 1", "assert f(2) == 4", "assert f(3) == 9", "assert f(-1) == 1"]


def share(completion, tests=TESTS, **options):
    options = {"timeout_s": 20, "workers": 1} | options
    (found,) = passes_unit_tests(**options)(prompts=["Square it."], completions=[completion], tests=[tests])
    return found


def test_the_value_is_the_share_of_tests_that_pass():
    codes = ["def f(x): return x * x", "def f(x): return x", "def f(x): return abs(x)", "def f(x): raise KeyError"]
    check = passes_unit_tests(timeout_s=20)
    assert check(prompts=["?"] * 4, completions=codes, tests=[TESTS] * 4) == [1.0, 0.25, 0.5, 0.0]


def test_all_or_nothing():
    check = passes_unit_tests(timeout_s=20, all_or_nothing=True)
    codes = ["def f(x): return x * x", "def f(x): return abs(x)"]
    assert check(prompts=["?"] * 2, completions=codes, tests=[TESTS] * 2) == [1.0, 0.0]


@pytest.mark.parametrize(
    "completion",
    [
        "Sure:\n```python\ndef f(x):\n    return g(x)\n```\nand\n```python\ndef g(x):\n    return x * x\n```\nDone.",
        [{"role": "assistant", "content": "```\ndef f(x): return x * x\n```"}],
        "```py\ndef f(x): return x * x",  # cut off before its fence was closed
    ],
)
def test_code_is_found_in_its_fences(completion):
    assert share(completion) == 1.0


def test_a_text_of_tests_counts_its_asserts():
    """Two of three asserts hold; the import and the variable between them are no tests."""
    tests = "import math\nassert f(2) == 4\nroot = math.sqrt(9)\nassert f(root) == 9\nassert f(1) == 7"
    assert share("def f(x): return x * x", tests) == pytest.approx(2 / 3)


def test_a_text_without_asserts_at_its_top_is_one_test():
    tests = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(3) == 9\n\ncheck(f)\n"
    assert share("def f(x): return x * x", tests) == 1.0
    assert share("def f(x): return x + 2", tests) == 0.0


@pytest.mark.parametrize("tests", [None, [], (), "", "# nothing", [""], ["# nothing", "\n"]])
def test_a_row_without_tests_has_no_verdict(tests):
    assert share("def f(x): return x", tests) is None


def test_an_empty_test_proves_nothing():
    assert share("def f(x): return x", ["", "assert f(1) == 2", "# f is done"]) == 0.0


@pytest.mark.parametrize(
    ("tests", "message"),
    [
        ([b"assert f(1) == 1"], "no text"),
        (b"assert f(1) == 1", "no text"),
        ([3], "no text"),
        ({"a": 1}, "no text"),
        (5, "no text"),
        ("-" * 100_000 + "1", "no Python"),
        (["-" * 100_000 + "1"], "no Python"),
        (["assert '\ud800'"], "no Python"),
    ],
    ids=[
        "bytes in a list",
        "bytes",
        "number in a list",
        "mapping",
        "number",
        "deep text",
        "deep in a list",
        "lone surrogate",
    ],
)
def test_tests_that_cannot_be_read_name_their_row(tests, message):
    with pytest.raises(DataError, match=rf"row 0: its column 'tests' holds what is {message}"):
        share("def f(x): return x", tests)


@pytest.mark.parametrize(
    "code",
    [
        "def f(x) return x",  # no Python
        "raise ValueError",
        "import sys; sys.exit(0)",
        "import os; os._exit(0)",
        "def f(x): return [0] * 10**12",  # more memory than there may be
        "import os\nfor fd in range(3, 99):\n  try: os.write(fd, b'P\\n' * 5)\n  except OSError: pass\nos._exit(0)",
        "print('P\\n' * 10)\nimport os; os.kill(os.getpid(), 9)",
        "f = \x00",
    ],
)
def test_what_ends_itself_has_passed_nothing(code):
    assert share(code) == 0.0


def test_endless_code_is_stopped_and_keeps_what_it_passed():
    """The second test never ends: the first has passed, the other three have not."""
    began = time.monotonic()
    assert share("def f(x):\n    while x == 2: pass\n    return x * x", timeout_s=0.5) == 0.25
    assert time.monotonic() - began < 10


def test_code_that_swallows_everything_is_stopped():
    code = "while True:\n    try:\n        import time; time.sleep(60)\n    except BaseException: pass"
    assert share(code, timeout_s=0.3) == 0.0


def test_children_are_killed_with_it(tmp_path):
    """The child would write a file a second from now; its group is gone by then."""
    mark = tmp_path / "alive"
    child = f"import time; time.sleep(1); open({str(mark)!r}, 'w')"
    code = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {child!r}])\ndef f(x): return x * x"
    assert share(code) == 1.0
    time.sleep(1.5)
    assert not mark.exists()


def test_it_runs_in_an_empty_folder_without_this_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("A_TOKEN", "secret")
    tests = [
        "import os; assert 'A_TOKEN' not in os.environ",
        "assert os.listdir('.') == []",
        f"assert os.getcwd() != {os.getcwd()!r}",
        "open('note', 'w').write('x')",
        "import sys; assert sys.flags.isolated",
    ]
    assert share("pass", tests) == 1.0


def test_files_and_output_are_capped():
    assert share("open('big', 'wb').write(bytes(1 << 25))\ndef f(x): return x * x") == 0.0
    assert share("print('x' * (1 << 24))\ndef f(x): return x * x") == 1.0


def test_tests_that_are_no_python_are_the_data_s_fault():
    with pytest.raises(DataError, match="row 0: its column 'tests' holds what is no Python"):
        share("x = 1", ["assert f("])


def test_python_that_does_not_start_says_nothing_of_the_completion(monkeypatch):
    monkeypatch.setattr("rewardlab.rewards.unit_tests.sys.executable", "/bin/false")
    with pytest.raises(RewardLabError, match="did not start"):
        share("x = 1")


@pytest.mark.parametrize("options", [{"timeout_s": 0}, {"memory_mb": -1}, {"workers": 0}, {"timeout_s": float("inf")}])
def test_limits_that_are_none_are_refused(options):
    with pytest.raises(ConfigError, match="limits must be > 0"):
        passes_unit_tests(**options)


def test_real_solutions_have_their_recorded_verdicts(data_root):
    """40 solutions to MBPP and their hidden tests; of 60 others one verdict differs, so not all must agree."""
    path = data_root / "reflexion_code" / "uniform.jsonl.gz"
    if not path.is_file():
        pytest.skip("reflexion_code is not there")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [row for row in map(json.loads, lines) if row["subset"].startswith("py/") and "mbpp" in row["subset"]]
    rows = [row for row in rows if row["label"]][:20] + [row for row in rows if not row["label"]][:20]
    check = passes_unit_tests(column="test", timeout_s=20)
    found = check(
        prompts=[row["prompt"] for row in rows],
        completions=[row["completion"] for row in rows],
        test=[row["test"] for row in rows],
    )
    agreed = sum(bool(value) == row["label"] for value, row in zip(found, rows, strict=True))
    assert agreed >= 38
