"""The pages in headless Chromium, before a real scorer: type, score, compare, see what is wrong; on a phone too.

Every test ends by asking what the browser had to complain about: messages on the console, errors of scripts, requests
that failed or went elsewhere. Nothing of it may be there that the test did not cause.
"""

from __future__ import annotations

import asyncio
import json
import math
import shlex
import shutil

import pytest
from tests.serving.backends import InProcessBackend
from tests.serving.fixed_backend import FixedBackend
from tests.serving.scripted_server import served

from rewardlab.serving.app import create_app
from rewardlab.serving.items import ItemScore
from rewardlab.serving.settings import ServerSettings
from rewardlab.types import PromptGroup, Step

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on PATH")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROMPT = "What is the capital of France?"
HOSTILE = "</textarea><script>document.title = 'taken'</script><img src=x onerror=\"document.title = 'taken'\">"


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=BROWSER, args=OPTIONS)
        yield opened
        opened.close()


class Watched:
    """A page, and what the browser had to say of it."""

    def __init__(self, page, address):
        self.page, self.address, self.said, self.asked = page, address, [], []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("requestfailed", lambda request: self.said.append(f"failed: {request.url}"))
        page.on("request", lambda request: self.asked.append(request.url))


@pytest.fixture
def opened(browser):
    """Opens pages, each in a browser context of its own, and in the end checks what was said of them."""
    contexts, pages = [], []

    def open_page(address, path="/", ready="#model-facts > div", **options):
        contexts.append(browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options}))
        pages.append(Watched(contexts[-1].new_page(), address))
        pages[-1].page.set_default_timeout(10_000)
        pages[-1].page.goto(address + path)
        pages[-1].page.wait_for_selector(ready)
        return pages[-1].page

    open_page.expected = []
    yield open_page
    for watched in pages:
        assert [text for text in watched.said if text not in open_page.expected] == []
        assert [url for url in watched.asked if not url.startswith((watched.address, "data:"))] == []
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def reward_backend(scorer):
    return InProcessBackend(scorer)


@pytest.fixture(scope="module")
def address(reward_backend):
    with served(create_app(reward_backend, ServerSettings())) as found:
        yield found


def write(page, *completions, prompt=PROMPT):
    """Fills the form as somebody without a mouse does: every character typed, from field to field with Tab."""
    page.get_by_role("textbox", name="Prompt").focus()
    page.keyboard.insert_text(prompt)
    for number, text in enumerate(completions):
        while page.evaluate("document.activeElement.id") != f"completion-{chr(65 + number)}":
            page.keyboard.press("Tab")
        page.keyboard.type(text)


def score(page):
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#score[aria-busy=true]", state="detached")
    page.locator("#status", has_not_text="Scoring …").wait_for()


def values(page, selector):
    """The exact numbers behind what is shown."""
    return [float(value) for value in page.eval_on_selector_all(selector, "all => all.map(one => one.value)")]


def overflow(page):
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


def test_typed_scored_and_compared_by_keyboard_as_the_scorer_scores(opened, address, scorer):
    page = opened(address)
    write(page, "The capital of France is Paris.", "I am sorry, but no.")
    score(page)
    texts = ["The capital of France is Paris.", "I am sorry, but no."]
    raw = scorer.score([PROMPT] * 2, texts)
    assert values(page, ".figure data") == pytest.approx(raw, abs=1e-5)
    scale = scorer.reference_scale
    assert values(page, ".percentile data") == pytest.approx(scale.transform(raw, "percentile"), abs=1e-3)
    assert values(page, ".figures div:nth-child(2) data") == pytest.approx(scale.transform(raw, "z"), abs=1e-5)
    temperature = scale.temperature or 1.0
    chance = 1 / (1 + math.exp(-abs(raw[1] - raw[0]) / temperature))
    winner, loser = "AB" if raw[0] > raw[1] else "BA"
    assert f"{winner} is preferred to {loser} with probability" in page.inner_text("#preference .lead")
    assert values(page, "#preference .lead data") == pytest.approx([chance], abs=1e-5)
    said = "No temperature is fitted" if scale.temperature is None else "fitted on preferences"
    assert said in page.inner_text("#preference .note")
    assert "Raw scores compare only within a prompt" in page.inner_text("#preference .note")
    assert [text.strip() for text in page.locator(".rank").all_inner_texts()] == (
        ["1st of 2", "2nd of 2"] if raw[0] > raw[1] else ["2nd of 2", "1st of 2"]
    )
    assert scorer.fingerprint[:12] in page.inner_text("#model")

    page.get_by_role("button", name="Add a completion").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "completion-C"
    page.keyboard.type("42")
    assert page.locator(".completion.stale").count() == 2  # what stands there was not scored with the third
    score(page)
    raw = scorer.score([PROMPT] * 3, [*texts, "42"])
    assert values(page, ".figure data") == pytest.approx(raw, abs=1e-5)
    chances = [1 / (1 + math.exp((b - a) / temperature)) for a in raw for b in raw if a is not b]
    assert values(page, ".matrix td data") == pytest.approx(chances, abs=1e-5)
    page.get_by_role("button", name="Remove completion B").click()
    score(page)
    assert values(page, ".figure data") == pytest.approx([raw[0], raw[2]], abs=1e-5)


def test_turns_are_sent_as_messages_and_the_draft_outlives_a_reload(opened, address, scorer):
    page = opened(address)
    page.get_by_role("button", name="A conversation").click()
    page.locator(".turn textarea").first.fill("Be brief.")
    for index, text in enumerate(["Hello", "Hi", "Bye"]):
        page.locator(".turn textarea").nth(index + 1).fill(text)
    page.fill("#completion-A", "Goodbye")
    page.fill("#completion-B", "No")
    page.reload()
    page.wait_for_selector("#model-facts > div")
    roles = ["system", "user", "assistant", "user"]
    said = ["Be brief.", "Hello", "Hi", "Bye"]
    assert page.locator(".turn textarea").evaluate_all("all => all.map(one => one.value)") == said
    score(page)
    prompt = [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]
    raw = scorer.score([prompt] * 2, ["Goodbye", "No"])
    assert values(page, ".figure data") == pytest.approx(raw, abs=1e-5)
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".turn").count() == 1
    page.get_by_role("button", name="Undo").click()
    assert page.locator(".turn").count() == 4


def test_hostile_text_stays_text(opened, address, reward_backend):
    page = opened(address)
    page.fill("textarea[aria-label=Prompt]", HOSTILE)
    page.fill("#completion-A", HOSTILE)
    page.fill("#completion-B", "[x](javascript:alert(1)) ' \" & <b>")
    score(page)
    assert page.locator(".figure data").count() == 2
    assert page.title() == "rewardlab playground"
    assert page.locator("img, b, script").count() == 1  # the page's own script
    sent = reward_backend.asked[-1]
    assert [item.completion for item in sent] == [HOSTILE, "[x](javascript:alert(1)) ' \" & <b>"]
    page.get_by_role("button", name="Copy as curl").click()
    command = page.input_value("#curl-text")
    assert json.loads(command.partition("-d '")[2][:-1].replace("'\\''", "'"))["prompt"] == HOSTILE
    page.keyboard.press("Escape")
    assert page.locator("dialog[open]").count() == 0
    assert page.evaluate("document.activeElement.id") == "as-curl"


def test_an_error_stands_beside_its_completion_and_the_others_keep_their_scores(opened, address, scorer):
    page = opened(address)
    score(page)
    assert page.locator(".fault:visible").count() == 2  # nothing was written
    assert page.evaluate("document.activeElement.id") == "completion-A"
    write(page, "Paris")
    page.fill("#completion-B", "very long " * 400)
    score(page)
    assert values(page, ".figure data") == pytest.approx(scorer.score([PROMPT], ["Paris"]), abs=1e-5)
    assert "128" in page.inner_text("#fault-B")
    assert page.get_attribute("#completion-B", "aria-invalid") == "true"
    assert page.get_attribute("#completion-B", "aria-describedby") == "fault-B"
    assert "could not be scored" in page.inner_text("#status")
    assert page.locator("#preference:visible").count() == 0


def test_a_server_that_sleeps_is_told_in_words_and_asked_again_by_a_button(opened, address, reward_backend):
    opened.expected = ["Failed to load resource: the server responded with a status of 503 (Service Unavailable)"]
    page = opened(address)
    write(page, "Paris", "Rome")
    reward_backend.state = "sleeping"
    try:
        score(page)
    finally:
        reward_backend.state = "ready"
    assert "the model is sleeping" in page.inner_text("#problem")
    assert "3 seconds" in page.inner_text("#problem")
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector("#preference:not([hidden])")
    assert page.locator("#problem:visible").count() == 0


class Slow(FixedBackend):
    async def score(self, items):
        await asyncio.sleep(5)


def test_scoring_is_cancelled_by_escape(opened):
    with served(create_app(Slow(), ServerSettings())) as address:
        opened.expected = [f"failed: {address}/v1/rewards"]
        page = opened(address)
        write(page, "a", "b")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#cancel:not([hidden])")
        page.keyboard.press("Escape")
        page.locator("#status", has_text="Cancelled").wait_for()
        assert page.get_attribute("#score", "aria-busy") == "false"


def test_a_process_model_shows_its_steps_with_words_beside_the_colours(opened, process_scorer):
    solution = ["3 + 4 = 7.", "7 * 2 = 15.", "So it is 15."]
    with served(create_app(InProcessBackend(process_scorer), ServerSettings())) as address:
        page = opened(address)
        assert page.get_by_role("button", name="Steps").is_visible()
        page.fill("textarea[aria-label=Prompt]", "What is (3 + 4) * 2?")
        page.fill("#completion-A", "\n".join(solution))
        page.fill("#completion-B", "14")
        score(page)
        steps = (tuple(map(Step, solution)), (Step("14"),))
        group = PromptGroup("What is (3 + 4) * 2?", ("\n".join(solution), "14"), steps=steps)
        (expected,) = process_scorer.step_scores([group])
        assert values(page, ".steps data") == pytest.approx([p for one in expected for p in one], abs=1e-5)
        assert page.locator(".steps .text").all_inner_texts() == [*solution, "14"]
        words = page.locator(".steps .word").all_inner_texts()
        assert all(any(word in text for word in ("right", "unsure", "wrong")) for text in words)
        assert values(page, ".figure data") == pytest.approx(process_scorer.score_groups([group])[0], abs=1e-5)


def test_an_ensemble_shows_how_far_its_members_disagree_and_a_cut_prompt_is_flagged(opened):
    results = [ItemScore(1.5, 20, True, (), 0.25), ItemScore(1.5, 8, False, (), 0.5)]
    backend = FixedBackend(results * 2, members=("a", "b"), how="min", members_scale="calibrated")
    with served(create_app(backend, ServerSettings())) as address:
        page = opened(address)
        write(page, "Paris", "Rome")
        score(page)
        assert page.locator(".figures div", has_text="disagreement").all_inner_texts() == [
            "disagreement\n0.250",
            "disagreement\n0.500",
        ]
        assert "oldest part of the prompt was cut" in page.inner_text(".completion:first-child .flag")
        assert page.locator(".flag").count() == 1
        assert page.locator(".rank").all_inner_texts() == ["1st of 2, tied"] * 2
        said = "An ensemble gives its own score alone: min of its 2 members\u2019 calibrated scores."
        assert page.inner_text("#model-remark") == said
        assert page.locator(".unit").all_inner_texts() == ["ensemble score"] * 2
        assert page.locator(".figures dt").all_inner_texts() == ["tokens", "disagreement"] * 2
        assert page.get_by_role("button", name="Steps").count() == 0  # of models that read them


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_without_scrolling_sideways(opened, address, scheme):
    phone = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True, "color_scheme": scheme}
    page = opened(address, **phone)
    page.get_by_role("button", name="A complaint").tap()
    page.fill("#completion-A", "w" * 100)
    page.locator("#score").tap()
    page.wait_for_selector("#preference:not([hidden])")
    assert overflow(page) == 0
    small = page.eval_on_selector_all(
        "button, select, textarea, nav a",
        "all => all.filter(one => one.offsetParent && one.offsetHeight < 40).map(one => one.outerHTML)",
    )
    assert small == []
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(251, 250, 247)", "dark": "rgb(20, 23, 28)"}[scheme]


def test_the_api_page_fits_a_phone(opened, address):
    page = opened(address, "/docs", ready=".route", viewport={"width": 360, "height": 740}, is_mobile=True)
    assert overflow(page) == 0


def test_rendered_text_on_the_api_page_is_the_models_own_and_can_be_pasted_into_a_shell(opened):
    rendered = '<u>What is the capital of France?</u>\n<a>It\'s "Paris".</a>'
    with served(create_app(FixedBackend(rendered_example=rendered), ServerSettings())) as address:
        page = opened(address, "/docs", ready=".copy")
        page.locator(".rendered-note", has_text="the chat template of rm").first.wait_for()
        command = page.locator("#sglang-post-classify pre").first.inner_text()
    assert json.loads(shlex.split(command)[-1]) == {"text": rendered}
    with served(create_app(FixedBackend(reads_rendered="an outcome model"), ServerSettings())) as address:
        page = opened(address, "/docs", ready=".copy")
        page.locator(".rendered-note", has_text="takes no rendered text").first.wait_for()


def test_clients_are_found_by_their_names_and_requests_are_copied(opened, address):
    page = opened(address, "/docs", ready=".copy", permissions=["clipboard-read", "clipboard-write"])
    page.fill("#search", "cohere")
    assert page.locator("#clients tbody tr:visible th").all_inner_texts() == ["Cohere reranking"]
    assert page.locator("#vllm-post-v1-rerank").is_visible()
    page.locator(".copy:visible").first.click()
    page.locator(".copy", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith(f"curl '{address}")


def test_with_a_key_the_browser_asks_for_it_once_and_both_pages_work(opened):
    with served(create_app(FixedBackend(), ServerSettings(api_key="sesame"))) as address:
        page = opened(address, http_credentials={"username": "me", "password": "sesame"})
        write(page, "Paris", "Rome")
        score(page)
        assert values(page, ".figure data") == [0.0, 1.0]
        page.get_by_role("button", name="Copy as curl").click()
        command = page.input_value("#curl-text")
        assert "$REWARDLAB_API_KEY" in command
        assert "sesame" not in command
        page.keyboard.press("Escape")
        refused = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
        lost = ["Failed to load resource: net::ERR_FAILED", f"failed: {address}/v1/rewards"]
        opened.expected = [refused, *lost]
        page.route("**/v1/rewards", lambda route: route.fulfill(status=401, json={}))  # the key was changed meanwhile
        score(page)
        assert "give the key as the password" in page.inner_text("#problem")
        page.route("**/v1/rewards", lambda route: route.abort())
        score(page)
        assert "cannot be reached" in page.inner_text("#problem")


def test_the_api_page_is_searched_and_its_links_lead_somewhere(opened, address):
    page = opened(address, "/docs", ready=".route")
    total = page.locator(".route").count()
    page.keyboard.press("/")
    page.keyboard.type("disagreement")
    assert 0 < page.locator(".route:visible").count() < total
    assert page.inner_text("#found") == f"{page.locator('.route:visible').count()} of {total} routes"
    page.keyboard.press("Escape")
    assert page.locator(".route:visible").count() == total
    lost = page.eval_on_selector_all(
        "a[href^='#']",
        "all => all.map(one => one.getAttribute('href').slice(1)).filter(id => !document.getElementById(id))",
    )
    assert lost == []
    assert address in page.inner_text(".route pre")
