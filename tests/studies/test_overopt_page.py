"""The page of an over-optimisation study: whole, well-formed, alone, with every figure."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest
from tests.studies.test_overopt_result import write_seeds

from rewardlab.studies.overopt_page import figures, render_page, write_pages
from rewardlab.studies.overopt_result import OveroptResult

VOID = {"meta", "br", "hr", "img", "input", "link"}


class Balanced(HTMLParser):
    """Fails on a tag that closes another than the last open one."""

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("seeds", [1, 3])
def test_the_page_has_every_figure_and_the_headline(tmp_path, seeds):
    result = OveroptResult.load(write_seeds(tmp_path, seeds))
    page = render_page(result)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
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


def test_everything_is_written(tmp_path):
    result = OveroptResult.load(write_seeds(tmp_path, 2))
    assert write_pages(result, tmp_path).name == "overopt.html"
    written = {path.name for path in tmp_path.iterdir()}
    assert {"overopt.html", "overopt.json", "table.md", "grpo-ensembles.svg"} <= written
    for path in tmp_path.glob("*.svg"):
        ElementTree.parse(path)
