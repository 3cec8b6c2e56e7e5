"""The tables must be free of accidents: a phrase that holds another would be counted twice."""

from __future__ import annotations

import itertools
import re

import pytest

from rewardlab.studies import phrases


def test_articles():
    nouns = {topic.name: topic.noun for topic in phrases.TOPICS}
    assert nouns["anchor"] == "an anchor"
    assert nouns["umbrella"] == "an umbrella"
    assert nouns["kettle"] == "a kettle"


def test_every_fact_belongs_to_one_topic_and_names_no_topic():
    facts = [topic.fact(aspect) for topic in phrases.TOPICS for aspect in phrases.ASPECTS]
    assert [(a, b) for a, b in itertools.permutations(facts, 2) if a in b] == []
    assert [f for f in facts for t in phrases.TOPICS if re.search(rf"\b{t.name}\b", f)] == []


@pytest.mark.parametrize(
    "tables",
    [
        (phrases.COURTESIES, phrases.RUDENESSES, phrases.HEDGES, phrases.FILLERS, phrases.EVASIONS, phrases.NEXT_STEPS),
        (phrases.OPENERS[1:], phrases.GREETINGS[1:]),
    ],
)
def test_no_sentence_holds_another(tables):
    sentences = [s.lower().rstrip(".") for table in tables for s in table]
    assert [(a, b) for a, b in itertools.permutations(sentences, 2) if a in b] == []


@pytest.mark.parametrize("aspect", phrases.ASPECTS)
@pytest.mark.parametrize("topic", phrases.TOPICS, ids=lambda topic: topic.name)
def test_a_question_carries_the_cue_of_its_aspect_alone(topic, aspect):
    for opener, question in itertools.product(phrases.OPENERS, phrases.ASPECT_QUESTIONS[aspect]):
        text = f"{opener} {question.format(noun=topic.noun)}"
        found = [a for a, cue in phrases.ASPECT_CUES.items() if re.search(cue, text, re.IGNORECASE)]
        # A place is asked by "where", whatever else is said; read_request looks for it first.
        assert found[0] == aspect, text
