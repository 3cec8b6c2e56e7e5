"""The page of an over-optimisation study: whole, well-formed, alone, with every figure."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
from tests.page_checker import PageChecker
from tests.studies.test_overopt_result import write_seeds

from rewardlab.studies.overopt_page import figures, render_page, write_pages
from rewardlab.studies.overopt_result import OveroptResult


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_page_has_every_figure_and_the_headline(tmp_path, seeds):
    result = OveroptResult.load(write_seeds(tmp_path, seeds))
    page = render_page(result)
    PageChecker(page)
    assert [figure.name for figure in figures(result)] == [
        "best_of_n-gold-and-proxy",
        "best_of_n-ensembles",
        "grpo-gold-and-proxy",
        "grpo-ensembles",
        "best_of_n-data-sizes",
        "best_of_n-model-sizes",
    ]
    assert page.count("<figure>") == page.count("<svg ") == 6
    assert all(sentence in page for sentence in result.headline)
    assert "AdaptiveKL(0.05, target=1.0)" in page
    assert not re.search(r'(src|href)="|<script|https?://', page), "nothing is loaded from anywhere"


def test_without_grpo_there_is_no_budget_for_a_controller(tmp_path):
    result = OveroptResult.load(write_seeds(tmp_path, 2, grpo=False))
    assert "AdaptiveKL" not in render_page(result)
    assert len(figures(result)) == 4


def test_only_the_ensemble_has_a_correlation_of_its_mean(tmp_path):
    """The proxies of the first size are an ensemble; of every other size there is one."""
    files = write_seeds(tmp_path, 1)
    record = json.loads(files[0].read_text())
    (first,) = record["proxies"]
    record["proxies"].append(first | {"correlation": 0.31})
    files[0].write_text(json.dumps(record))
    page = render_page(OveroptResult.load(files))
    assert "0.40; mean of the ensemble 0.50<" in page
    assert ">0.31<" in page


def test_everything_is_written(tmp_path):
    result = OveroptResult.load(write_seeds(tmp_path, 2))
    assert write_pages(result, tmp_path).name == "overopt.html"
    written = {path.name for path in tmp_path.iterdir()}
    assert {"overopt.html", "overopt.json", "table.md", "grpo-ensembles.svg"} <= written
    for path in tmp_path.glob("*.svg"):
        ElementTree.parse(path)
