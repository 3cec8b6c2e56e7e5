"""The queue: nothing lost, nothing twice, by age and by turns, equal prompts together, never over the budget."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardlab.serving.batch_queue import PREFIX_CHARS, TOKENS_PER_BYTE, BatchQueue, Entry, Job
from rewardlab.serving.items import Continued, Conversation, Ids, Item, ItemScore, Rendered

FAR = 1e9


def job_of(*items: Item, deadline: float = FAR, since: float = 0.0) -> Job:
    return Job(items, deadline=deadline, since=since)


def talk(prompt: str, completion: str = "yes") -> Conversation:
    return Conversation(prompt, completion)


def put(queue: BatchQueue, *jobs: Job) -> tuple[Job, ...]:
    for job in jobs:
        queue.put(job)
    return jobs


def names(entries: list[Entry]) -> list[tuple[object, int]]:
    return [(entry.item, entry.index) for entry in entries]


items = st.one_of(
    st.builds(Conversation, st.sampled_from(["", "a", "b" * 50, "é" * 30]), st.text(max_size=40)),
    st.builds(Rendered, st.text(max_size=60)),
    st.builds(Continued, st.sampled_from(["a", "b" * 600]), st.text(max_size=40)),
    st.builds(Ids, st.lists(st.integers(0, 3), min_size=1, max_size=100).map(tuple)),
)
jobs = st.lists(st.lists(items, min_size=1, max_size=6), min_size=1, max_size=12)


@settings(max_examples=50)
@given(jobs, st.integers(1, 120))
def test_every_item_goes_once_and_every_second_batch_has_the_oldest_and_keeps_the_budget(requests, budget):
    queue = BatchQueue(10_000)
    waiting = [(number, index) for number, request in enumerate(requests) for index in range(len(request))]
    number_of = {job: number for number, job in enumerate(put(queue, *(job_of(*request) for request in requests)))}
    by_age = True
    while waiting:
        by_age = not by_age
        assert len(queue) == len(waiting)
        entries, tokens, _ = queue.next_batch(budget, now=0.0)
        batch = [(number_of[entry.job], entry.index) for entry in entries]
        assert len(batch) == 1 or tokens <= budget
        if not by_age:
            # The head of the queue by turns: no request's earlier item waits.
            number, index = batch[0]
            assert not [place for place in waiting if place[0] == number and place[1] < index]
            for place in batch:
                waiting.remove(place)
            continue
        assert waiting[0] in batch
        # Prompts are in the order in which their oldest came, and so are the items of one.
        firsts = list(dict.fromkeys(entry._key for entry in entries))
        oldest_first = list(
            dict.fromkeys(
                entry._key for place in waiting for entry in entries if (number_of[entry.job], entry.index) == place
            )
        )
        assert firsts == oldest_first
        for key in firsts:
            own = [place for place, entry in zip(batch, entries, strict=True) if entry._key == key]
            assert own == sorted(own)
        for place in batch:
            waiting.remove(place)  # raises where an item went twice
    assert queue.next_batch(budget, now=0.0) == ([], 0, 0)
    assert (len(queue), queue.tokens, queue._groups) == (0, 0, {})
    assert len(queue._turns) <= 64 + 2 * sum(map(len, requests))


@settings(max_examples=50)
@given(jobs, st.data())
def test_what_is_taken_back_leaves_no_trace(requests, data):
    queue = BatchQueue(10_000)
    kept = []
    for request in requests:
        (job,) = put(queue, job_of(*request))
        if data.draw(st.booleans()):
            queue.remove(job)
        else:
            kept.append(job)
    only_kept = BatchQueue(10_000)
    put(only_kept, *(job_of(*job.items) for job in kept))
    assert (len(queue), queue.tokens) == (len(only_kept), only_kept.tokens)
    assert names(queue.next_batch(10**9, 0.0)[0]) == names(only_kept.next_batch(10**9, 0.0)[0])


def test_equal_prompts_are_pulled_forward_and_counted_once():
    """300 bytes of prompt are 90 tokens, 10 bytes of completion 3: 96 for two, 186 were it counted twice."""
    queue = BatchQueue(100)
    first, other, third = put(
        queue, job_of(talk("p" * 300, "a" * 10)), job_of(talk("q" * 300, "b" * 10)), job_of(talk("p" * 300, "c" * 10))
    )
    assert queue.tokens == 90 + 3 + 3 + 90 + 3
    entries, tokens, _ = queue.next_batch(100, now=0.0)
    assert [entry.job for entry in entries] == [first, third]
    assert tokens == 96
    assert [entry.job for entry in queue.next_batch(100, now=0.0)[0]] == [other]


def test_text_and_messages_that_render_alike_are_one_prompt():
    queue = BatchQueue(100)
    put(
        queue,
        job_of(talk("hello")),
        job_of(talk("other")),
        job_of(Conversation(({"role": "user", "content": "hello"},), "no")),
    )
    assert len({entry._key for entry in queue.next_batch(1000, now=0.0)[0][:2]}) == 1


@pytest.mark.parametrize(
    ("one", "two", "alike"),
    [
        (Rendered("x" * PREFIX_CHARS + "a"), Rendered("x" * PREFIX_CHARS + "b"), True),
        (Rendered("a" + "x" * PREFIX_CHARS), Rendered("b" + "x" * PREFIX_CHARS), False),
        (Continued("x" * PREFIX_CHARS, "a"), Rendered("x" * PREFIX_CHARS + "b"), True),
        (Ids((7,) * 64 + (1,)), Ids((7,) * 64 + (2,)), True),
        (Ids((1,) + (7,) * 64), Ids((2,) + (7,) * 64), False),
        (Conversation("x", "a"), Rendered("x"), False),
    ],
)
def test_what_begins_alike_shares_its_beginning(one, two, alike):
    queue = BatchQueue(10)
    put(queue, job_of(one), job_of(two))
    assert (len({entry._key for entry in queue.next_batch(10**6, now=0.0)[0]}) == 1) is alike


def test_a_stream_of_one_prompt_does_not_starve_another():
    queue = BatchQueue(10_000)
    put(queue, *(job_of(talk("p" * 30)) for _ in range(20)))
    (other,) = put(queue, job_of(talk("q" * 30)))
    batches = 0
    while other in {entry.job for entry in queue._order.values()}:
        queue.next_batch(10, now=0.0)
        batches += 1
        put(queue, job_of(talk("p" * 30)))
    assert batches <= 21


def test_a_request_over_the_budget_is_divided_and_done_when_all_of_it_is():
    queue = BatchQueue(10)
    (job,) = put(queue, job_of(*(Ids((number,) * 70) for number in range(3))))
    sizes, done = [], []
    while entries := queue.next_batch(150, now=0.0)[0]:
        sizes.append(len(entries))
        done += [entry.settle(ItemScore(float(entry.index), 70)) for entry in entries]
    assert sizes == [2, 1]
    assert done == [False, False, True]
    assert [result.score for result in job.answered()] == [0.0, 1.0, 2.0]


def test_what_nobody_waits_for_any_more_is_never_taken():
    queue = BatchQueue(10)
    late, alive, late_too = put(
        queue, job_of(talk("p"), talk("q"), deadline=1.0), job_of(talk("p")), job_of(talk("p"), deadline=2.0)
    )
    assert [entry.job for entry in queue.next_batch(1000, now=2.0)[0]] == [alive]
    assert len(queue) == 0
    assert not queue.is_waiting(late)
    assert not queue.is_waiting(late_too)


@pytest.mark.parametrize("make", [Rendered, lambda text: Ids(tuple(map(ord, text)))], ids=["text", "ids"])
def test_what_texts_have_in_common_beyond_their_key_counts_once(make):
    """Four prompts of 1,000 characters, eight answers of 100 each: 4 x (1000 + 800), at one token a character."""
    queue = BatchQueue(100)
    queue.learn(10**9, 10**9)
    answers = [f"{n}" * 100 for n in range(8)]
    put(queue, *(job_of(make(f"{prompt}" * 1000 + answer)) for answer in answers for prompt in range(4)))
    assert queue.tokens == pytest.approx(4 * 1800, rel=0.02)


def test_prompts_that_fit_a_batch_are_not_divided_among_two():
    """Each group is 1,800 tokens: of a budget of 5,000 the last 1,400 stay free rather than compute a prompt twice."""
    queue = BatchQueue(100)
    queue.learn(10**9, 10**9)
    put(queue, *(job_of(Rendered(f"{prompt}" * 1000 + f"{n}" * 100)) for n in range(8) for prompt in range(4)))
    sizes = []
    while len(queue):
        entries, tokens, relief = queue.next_batch(5000, now=0.0)
        assert tokens == relief
        sizes.append([sum(entry.item.text[0] == f"{prompt}" for entry in entries) for prompt in range(4)])
    assert sizes == [[8, 8, 0, 0], [0, 0, 8, 8]]


def test_a_job_begun_anew_forgets_what_it_had_and_goes_first():
    queue = BatchQueue(10)
    job, other = put(queue, job_of(Ids((1,) * 70), Ids((2,) * 70)), job_of(Ids((3,) * 70)))
    (sent,) = queue.next_batch(70, now=0.0)[0]
    job.begun_with = "old"
    queue.begin_anew(job)
    assert job.begun_with is None
    assert not sent.is_awaited
    assert not sent.settle(ItemScore(-1.0, 70))
    assert job.results == [None, None]
    assert [(entry.job, entry.index) for entry in queue.next_batch(140, now=0.0)[0]] == [(job, 0), (job, 1)]
    assert [entry.job for entry in queue.next_batch(140, now=0.0)[0]] == [other]


def test_the_queue_is_bounded_in_items():
    queue = BatchQueue(3)
    (job,) = put(queue, job_of(talk("a"), talk("b")))
    assert queue.has_room(1)
    assert not queue.has_room(2)
    with pytest.raises(ValueError, match="2 of 3 places are taken"):
        queue.put(job_of(talk("c"), talk("d")))
    queue.remove(job)
    assert queue.has_room(3)


def test_the_ratio_is_learned_from_what_the_texts_really_had():
    queue = BatchQueue(10)
    assert queue.tokens_per_byte == pytest.approx(TOKENS_PER_BYTE)
    for _ in range(60):
        queue.learn(num_bytes=10_000, num_tokens=5_000)
    assert queue.tokens_per_byte == pytest.approx(0.5, abs=1e-3)
    queue.learn(num_bytes=0, num_tokens=0)
    put(queue, job_of(talk("p" * 100, "c" * 100)))
    assert queue.tokens == pytest.approx(100, abs=2)


def test_a_prompt_of_messages_that_is_continued_waits_as_the_conversation_does():
    """One prompt: what is shared counts once, so that the two count less than twice the one."""
    prompt = ({"role": "user", "content": "p" * 100},)
    queue = BatchQueue(10)
    put(queue, job_of(Continued(prompt, "x" * 10)))
    alone = queue.tokens
    put(queue, job_of(Conversation(prompt, "x" * 10)))
    assert queue.tokens == alone + 3  # 10 bytes, 0.3 tokens each


def test_what_is_shared_by_several_batches_waits_once_and_relieves_once():
    """A prompt of 100 bytes (30 tokens) and 4 completions of 100 (30 each): 150 wait.

    A budget of 90 takes 2 of them in each batch, 90 tokens computed; what waits falls by 60, then by 90.
    """
    queue = BatchQueue(10)
    put(queue, job_of(*(talk("p" * 100, "x" * 100) for _ in range(4))))
    assert queue.tokens == 150
    first, second = queue.next_batch(90, now=0.0), queue.next_batch(90, now=0.0)
    assert [(len(taken.entries), taken.tokens, taken.relief) for taken in (first, second)] == [(2, 90, 60), (2, 90, 90)]
    assert queue.tokens == 0


def test_thousands_of_requests_are_taken_in_linear_time():
    """Twice as many cost about twice as much; 16 times as many, were it quadratic, 256 times."""

    def calls(count: int) -> int:
        """How many functions are called, those in C too: the same however busy the machine is."""
        queue = BatchQueue(count)
        put(queue, *(job_of(talk(f"prompt {number % 97}", "an answer")) for number in range(count)))
        called = 0

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal called
            called += event in ("call", "c_call")

        sys.setprofile(note)
        try:
            while queue.next_batch(40, now=0.0)[0]:
                pass
        finally:
            sys.setprofile(None)
        return called

    assert calls(16_384) < 24 * calls(1024)


def test_a_long_prompt_that_a_request_repeats_is_read_once():
    """1024 documents to one query of 100,000 characters: read anew for each, that were seconds of a blocked server."""
    query = "q" * 100_000
    queue = BatchQueue(1024)
    start = time.process_time()
    queue.put(job_of(*(talk(query, str(number)) for number in range(1024))))
    assert time.process_time() - start < 2


def test_requests_of_one_item_go_in_the_order_in_which_they_came():
    queue = BatchQueue(1000)
    jobs = put(queue, *(job_of(talk(str(number), "x" * (number % 7))) for number in range(200)))
    gone = []
    while entries := queue.next_batch(7, now=0.0)[0]:
        gone += [entry.job for entry in entries]
        if len(gone) < 100:
            jobs += put(queue, job_of(talk(f"later {len(gone)}")))
    assert gone == list(jobs)


@pytest.mark.parametrize("tokens", [10, 500])
def test_a_request_of_a_thousand_items_does_not_hold_up_one_of_one_item(tokens):
    """Whenever a small one comes, it goes with one of the next three batches; 500 tokens are five budgets for one."""
    queue = BatchQueue(10_000)
    (large,) = put(queue, job_of(*(Ids((number,) * tokens) for number in range(1000))))
    for number in range(30):
        (small,) = put(queue, job_of(Ids((number, 7))))
        batches = [queue.next_batch(100, now=0.0)[0] for _ in range(3)]
        assert small in {entry.job for entries in batches for entry in entries}
    assert queue.is_waiting(large)


def test_a_request_of_a_thousand_items_is_not_starved_by_those_of_one():
    """10,000 tokens, 100 a batch: 100 batches alone, and 200 while small ones would fill every batch twice."""
    queue = BatchQueue(100_000)
    (large,) = put(queue, job_of(*(Ids((number,) * 10) for number in range(1000))))
    batches = 0
    while queue.is_waiting(large):
        put(queue, *(job_of(Ids((5000 + 20 * batches + number,) * 10)) for number in range(20)))
        queue.next_batch(100, now=0.0)
        batches += 1
    assert 190 <= batches <= 200


def test_newcomers_of_hot_prompts_do_not_starve_another():
    """Four prompts, of each a whole budget comes with every batch: the other goes after one batch by age for each."""
    hot = [f"{number}" * 30 for number in range(4)]
    queue = BatchQueue(100_000)
    put(queue, *(job_of(talk(prompt)) for prompt in hot))
    (cold,) = put(queue, job_of(talk("q" * 30)))
    batches = 0
    while queue.is_waiting(cold):
        put(queue, *(job_of(talk(prompt)) for prompt in hot for _ in range(60)))
        queue.next_batch(50, now=0.0)
        batches += 1
    assert batches <= 2 * (4 + 1)


def test_turns_of_what_waits_no_more_are_thrown_away():
    """While small ones come for ever, the turns of a large one's items that went by age are never reached."""
    queue = BatchQueue(100_000)
    (large,) = put(queue, job_of(*(Ids((number,) * 10) for number in range(5000))))
    number = 5000
    while queue.is_waiting(large):
        for _ in range(20):
            put(queue, job_of(Ids((number,) * 10)))
            number += 1
        queue.next_batch(200, now=0.0)
        assert len(queue._turns) <= 2 * len(queue) + 64 + 400
