"""The words of the demo world: what can be asked, and the phrases that answers are made of. Tables only.

Kept apart from the truth (:mod:`rewardlab.studies.utility`) and from the sampling (:mod:`rewardlab.studies.world`),
which both read them: a phrase that the sampler writes is a phrase that the truth can find.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Topic(NamedTuple):
    """A thing one can ask about, with the one true fact per aspect."""

    name: str
    use: str
    place: str
    make: str

    @property
    def noun(self) -> str:
        """The name with its article, ``"an anchor"``."""
        return f"{'an' if self.name[0] in 'aeiou' else 'a'} {self.name}"

    def fact(self, aspect: str) -> str:
        """The true fact of one of :data:`ASPECTS`."""
        return str(getattr(self, aspect))


ASPECTS: Final = ("use", "place", "make")

TOPICS: Final = (
    Topic("compass", "finding north", "on the bridge of a ship", "a magnetised needle"),
    Topic("kettle", "boiling water", "on a kitchen stove", "copper and tin"),
    Topic("violin", "playing melodies", "in an orchestra", "spruce and maple"),
    Topic("lantern", "lighting dark paths", "in an old porch", "glass and wire"),
    Topic("telescope", "watching the stars", "in an observatory", "two lenses in a tube"),
    Topic("saddle", "riding horses", "in a stable", "stitched leather"),
    Topic("anchor", "holding a boat still", "in a harbour", "forged iron"),
    Topic("hammock", "an afternoon nap", "between two palms", "knotted rope"),
    Topic("kite", "catching the wind", "on an open beach", "paper and bamboo"),
    Topic("sundial", "telling the hour", "in a walled garden", "carved slate"),
    Topic("loom", "weaving cloth", "in a village mill", "heavy oak beams"),
    Topic("barometer", "forecasting storms", "at a weather station", "a column of mercury"),
    Topic("umbrella", "keeping off the rain", "by the front door", "nylon on steel ribs"),
    Topic("canoe", "paddling down rivers", "at a lakeside camp", "birch bark"),
    Topic("quilt", "keeping warm at night", "on a guest bed", "patches of cotton"),
    Topic("anvil", "hammering hot metal", "in a smithy", "cast steel"),
)

# How a fact is said, how an aspect is asked. The truth recognises an aspect by ASPECT_CUES alone.
FACT_SENTENCES: Final = {
    "use": "{Noun} is for {fact}.",
    "place": "{Noun} is found {fact}.",
    "make": "{Noun} is made of {fact}.",
}
ASPECT_QUESTIONS: Final = {
    "use": ("What is {noun} for?", "What do people need {noun} for?", "Explain the use of {noun}."),
    "place": ("Where is {noun} kept?", "Where would I find {noun}?", "Explain where {noun} is found."),
    "make": ("What is {noun} made of?", "Which materials is {noun} made of?", "Explain what {noun} is made of."),
}
ASPECT_CUES: Final = {"place": r"\bwhere\b", "make": r"\bmade of\b", "use": r"\bfor\?|\buse of\b"}

FORMATS: Final = ("as a list", "in one sentence", "in at most 9 words")
FORMAT_QUESTIONS: Final = (
    "Tell me about {noun} {form}.",
    "Describe {noun} {form}.",
    "What is {noun}? Answer {form}.",
    "Say something about {noun} {form}.",
)

SUMS: Final = (
    "What is {a} plus {b}?",
    "Add {b} to {a}.",
    "{name} has {a} {things} and gets {b} more. How many are there?",
)
DIFFERENCES: Final = (
    "What is {a} minus {b}?",
    "Take {b} from {a}.",
    "{name} has {a} {things} and loses {b}. How many are left?",
)
DIFFERENCE_CUE: Final = r"\bminus\b|\bTake\b|\bloses\b"
THINGS: Final = ("apples", "stamps", "marbles", "coins", "books", "shells", "pencils", "tickets")

NAMES: Final = ("Nora", "Omar", "Mia", "Felix", "Aiko", "Bruno", "Clara", "Diego", "Elif", "Hugo", "Ines", "Jonas")
DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
EVENTS: Final = ("have lunch", "meet", "visit us", "play chess", "see the plans", "start the course", "fix the roof")
STANCES: Final = ("yes", "no")
REPLY_QUESTIONS: Final = (
    "Write a reply to {name}, who wants to {event} on {day}. Say {stance}.",
    "{name} asks to {event} on {day}. Write a reply to {name} and say {stance}.",
    "Draft a short reply to {name} about {day}: {name} would like to {event}. Say {stance}.",
)
STANCE_SENTENCES: Final = {"yes": "Yes, {day} works well.", "no": "Sadly {day} is not possible."}
STANCE_CUES: Final = {"yes": r"\bworks well\b", "no": r"\bis not possible\b"}
NEXT_STEPS: Final = ("I will send a note with the time.", "I will call you to settle the rest.")

GREETINGS: Final = (
    "",
    "Hello.",
    "Hi there.",
    "Good morning.",
    "Good evening.",
    "Excuse me.",
    "Hey.",
    "Dear assistant.",
)
OPENERS: Final = (
    "",
    "Quick question.",
    "I am new to this.",
    "A friend asked me this.",
    "This is a school task.",
    "I was wondering.",
    "My daughter wants to know.",
    "We had a bet about it.",
    "I have little time.",
    "It is late here.",
    "One more thing.",
    "I forgot again.",
)

# Manner. Each entry is looked for in the lower-case text; the sampler writes the sentence, the truth finds the entry.
COURTESIES: Final = (
    "Thank you for asking.",
    "I am happy to help.",
    "What a good question.",
    "I wish you a lovely day.",
    "Please ask me anything.",
    "It is my pleasure.",
)
RUDENESSES: Final = ("Look it up yourself.", "Everybody knows that.", "Stop wasting my time.", "I could not care less.")
HEDGES: Final = ("I am not sure.", "Maybe I am wrong.", "Perhaps it depends.", "I can only guess.")
FILLERS: Final = (
    "There is so much one could say here.",
    "Many people have thought about such things.",
    "Let us begin at the beginning.",
    "In the end everything is connected.",
    "It goes without saying.",
)
EVASIONS: Final = (
    "That is hard to say.",
    "I do not know that.",
    "Let us talk about something else.",
    "I have no answer.",
)
