// The playground's form: turns, completions, requests. What the answers look like is page_results.js's.
// Texts are hostile: everything is shown by textContent, and the page's policy refuses anything that would parse them.

const $ = (id) => document.getElementById(id);
const letter = (index) => String.fromCharCode(65 + index);
const MOST = Number(document.body.dataset.most);
const STORED = "rewardlab.playground";
const BASE = new URL(".", location.href); // without a user and key in the address, which fetch refuses
BASE.username = BASE.password = BASE.search = BASE.hash = "";

const EMPTY = { turns: [{ role: "user", text: "" }], completions: ["", ""] };

let model = null; // of /info
let running = null; // the AbortController of the request in progress
let undone = null; // what an example or Clear replaced

// ---- what is on the form ----

const turns = () => [...$("turns").children];
const completions = () => [...$("completions").children];
const textOf = (item) => item.querySelector("textarea").value;

function addTurn(role, text, before = null) {
  const item = $("a-turn").content.firstElementChild.cloneNode(true);
  item.querySelector("select").value = role;
  item.querySelector("textarea").value = text;
  item.querySelector("button").addEventListener("click", () => {
    const next = item.nextElementSibling || item.previousElementSibling;
    item.remove();
    changed();
    next.querySelector("textarea").focus();
  });
  $("turns").insertBefore(item, before);
  return item;
}

function addCompletion(text) {
  const item = $("a-completion").content.firstElementChild.cloneNode(true);
  item.querySelector("textarea").value = text;
  item.querySelector("button").addEventListener("click", () => {
    const next = item.nextElementSibling || item.previousElementSibling;
    item.remove();
    changed();
    next.querySelector("textarea").focus();
  });
  item.querySelector("textarea").addEventListener("input", () => fault(item, ""));
  $("completions").append(item);
  return item;
}

/** Names, labels and buttons, which depend on how many there are; then the draft is kept. */
function refresh() {
  const plain = turns().length === 1 && turns()[0].querySelector("select").value === "user";
  turns().forEach((item, index) => {
    item.querySelector(".head").hidden = plain;
    item.querySelector("textarea").setAttribute("aria-label", plain ? "Prompt" : `Turn ${index + 1}`);
    item.querySelector("select").setAttribute("aria-label", `Who speaks turn ${index + 1}`);
    const remove = item.querySelector("button");
    remove.hidden = turns().length === 1;
    remove.setAttribute("aria-label", `Remove turn ${index + 1}`);
  });
  $("add-system").hidden = turns().some((item) => item.querySelector("select").value === "system");
  completions().forEach((item, index) => {
    const name = letter(index);
    item.querySelector("textarea").id = `completion-${name}`;
    item.querySelector("label").htmlFor = `completion-${name}`;
    item.querySelector(".letter").textContent = name;
    item.querySelector(".called").textContent = "Completion";
    item.querySelector(".fault").id = `fault-${name}`;
    item.querySelector(".result").setAttribute("aria-label", `Scores of completion ${name}`);
    const remove = item.querySelector("button");
    remove.hidden = completions().length === 1;
    remove.setAttribute("aria-label", `Remove completion ${name}`);
  });
  $("add-completion").hidden = completions().length >= MOST;
  try {
    sessionStorage.setItem(STORED, JSON.stringify(draft()));
  } catch {
    // A full or forbidden storage only means that a reload begins anew.
  }
}

function changed() {
  running?.abort(); // it would answer for what no longer stands there
  markStale();
  refresh();
}

const draft = () => ({
  turns: turns().map((item) => ({ role: item.querySelector("select").value, text: textOf(item) })),
  completions: completions().map(textOf),
  split: $("split").value,
});

function fill(content) {
  running?.abort();
  $("turns").replaceChildren();
  $("completions").replaceChildren();
  content.turns.forEach(({ role, text }) => addTurn(role, text));
  content.completions.slice(0, MOST).forEach(addCompletion);
  if (content.split) $("split").value = content.split;
  clearResults();
  problem(null);
  fault($("content"), "");
  refresh();
}

function replaceBy(content, said) {
  undone = draft();
  fill(content);
  $("undo").hidden = false;
  $("status").textContent = said;
  $("turns").querySelector("textarea").focus();
}

function restore() {
  try {
    const kept = JSON.parse(sessionStorage.getItem(STORED));
    if (kept.turns.length && kept.completions.length) return fill(kept);
  } catch {
    // Nothing was kept, or not by this version.
  }
  fill(EMPTY);
}

// ---- what is asked ----

/** The body of /v1/rewards. */
function rewardsRequest() {
  const said = turns().map((item) => ({ role: item.querySelector("select").value, content: textOf(item) }));
  const prompt = said.length === 1 && said[0].role === "user" ? said[0].content : said;
  const body = { prompt, completions: completions().map(textOf) };
  const steps = stepTexts();
  if (steps) body.steps = steps;
  return body;
}

/** The steps of each completion, where the page tells them apart; null where the model does, or has none. */
function stepTexts() {
  const at = { lines: "\n", paragraphs: /\n\s*\n/ }[$("split").value];
  if (model?.kind !== "step" || !at) return null;
  return completions().map((item) => textOf(item).split(at).filter((step) => step.trim()));
}

/** Whether the form can be sent; what is missing is said beside its field, and the first of it is given the focus. */
function isComplete() {
  let first = null;
  const empty = turns().length > 1 ? turns().find((item) => !textOf(item).trim()) : null;
  fault($("content"), empty ? "A turn is empty: write it, or remove it." : "", empty);
  if (empty) first = empty;
  for (const item of completions()) {
    const isEmpty = !textOf(item).trim();
    fault(item, isEmpty ? "Nothing to score: write a completion, or remove it." : "");
    if (isEmpty) first ??= item;
  }
  first?.querySelector("textarea").focus();
  return first === null;
}

class Refusal extends Error {
  constructor(message, { status = 0, param = null, wait = 0 } = {}) {
    super(message);
    Object.assign(this, { status, param, wait });
  }
}

/** An answer of the API. Throws Refusal with the server's own words, or ours where it did not get so far. */
async function ask(path, body, signal) {
  let response;
  try {
    response = await fetch(new URL(path, BASE), {
      method: body ? "POST" : "GET",
      headers: body ? { "Content-Type": "application/json" } : {},
      body: body && JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached. Is it still running?", { status: 503 });
  }
  const told = await response.json().catch(() => null);
  if (response.ok && told) return told;
  const status = response.status;
  if (status === 401) {
    throw new Refusal("The server asks for its API key. Reload the page and give the key as the password; any name will do.", { status });
  }
  const words = told?.error?.message ?? `The server answered with status ${status}, and no reason.`;
  throw new Refusal(words, { status, param: told?.error?.param, wait: Number(response.headers.get("Retry-After")) });
}

async function loadModel() {
  try {
    showModel((await ask("info")).model);
  } catch (error) {
    showNoModel(error.message);
    if (error.status === 503) setTimeout(loadModel, 1000 * Math.max(3, error.wait || 0));
  }
}

async function score() {
  if (running) return;
  problem(null);
  if (!isComplete()) {
    $("status").textContent = "Something is missing; see beside the fields.";
    return;
  }
  running = new AbortController();
  const { signal } = running;
  busy(true);
  try {
    const body = rewardsRequest();
    const answer = await ask("v1/rewards", body, signal);
    if (answer.fingerprint !== model?.fingerprint) showModel((await ask("info", null, signal)).model); // reloaded meanwhile
    const results = answer.results;
    const isPair = results.length === 2 && results.every((result) => !result.error) && !body.steps;
    const [a, b] = body.completions;
    const comparison = isPair ? await ask("v1/compare", { prompt: body.prompt, a, b }, signal) : null;
    showResults(results, body, comparison);
  } catch (error) {
    if (error.name === "AbortError") $("status").textContent = "Cancelled.";
    else if (error instanceof Refusal) showRefusal(error);
    else throw error;
  } finally {
    running = null;
    busy(false);
  }
}

function showRefusal(error) {
  clearResults();
  const [, field, number] = /^(prompts?|completions|steps)(?:\.(\d+))?/.exec(error.param ?? "") ?? [];
  const item = number && field !== "prompt" ? completions()[Number(number)] : null;
  if (item) fault(item, error.message);
  else if (field?.startsWith("prompt")) fault($("content"), error.message);
  else return problem(error);
  $("status").textContent = "Not scored; see beside the field.";
}

function busy(on) {
  const button = $("score");
  button.setAttribute("aria-busy", on);
  button.setAttribute("aria-disabled", on); // not `disabled`, which would lose the focus
  button.firstChild.textContent = on ? "Scoring … " : "Score ";
  button.querySelector("kbd").hidden = on;
  $("cancel").hidden = !on;
  if (on) {
    $("status").textContent = "Scoring …";
    $("undo").hidden = true;
  }
}

// ---- the same as a command ----

function curl() {
  const body = JSON.stringify(rewardsRequest(), null, 2).replaceAll("'", "'\\''");
  const key = document.body.dataset.key === "yes" ? '  -H "Authorization: Bearer $REWARDLAB_API_KEY" \\\n' : "";
  return `curl '${new URL("v1/rewards", BASE)}' \\\n  -H 'Content-Type: application/json' \\\n${key}  -d '${body}'`;
}

async function copyCurl() {
  const field = $("curl-text");
  try {
    await navigator.clipboard.writeText(field.value);
    $("curl-status").textContent = "Copied.";
  } catch {
    field.select(); // the clipboard is there only on https and localhost
    $("curl-status").textContent = "Selected; copy it with your keyboard.";
  }
}

// ---- what is done ----

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  score();
});
$("form").addEventListener("input", changed);
$("turns").addEventListener("input", () => fault($("content"), ""));
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("curl").open) {
    event.preventDefault();
    score();
  } else if (event.key === "Escape" && running) running.abort();
});
$("cancel").addEventListener("click", () => {
  running?.abort();
  $("score").focus();
});
$("add-turn").addEventListener("click", () => {
  const role = turns().at(-1).querySelector("select").value === "user" ? "assistant" : "user";
  const item = addTurn(role, "");
  changed();
  item.querySelector("textarea").focus();
});
$("add-system").addEventListener("click", () => {
  const item = addTurn("system", "", turns()[0]);
  changed();
  item.querySelector("textarea").focus();
});
$("add-completion").addEventListener("click", () => {
  const item = addCompletion("");
  changed();
  item.querySelector("textarea").focus();
});
$("clear").addEventListener("click", () => replaceBy(EMPTY, "Cleared."));
$("undo").addEventListener("click", () => {
  fill(undone);
  $("undo").hidden = true;
  $("status").textContent = "As it was.";
  $("turns").querySelector("textarea").focus();
});
$("as-curl").addEventListener("click", () => {
  $("curl-text").value = curl();
  $("curl-note").textContent =
    document.body.dataset.key === "yes" ? "With the server's key in the environment variable REWARDLAB_API_KEY." : "For a shell such as bash.";
  $("curl-status").textContent = "";
  $("curl").showModal();
  $("curl-copy").focus();
});
$("curl-copy").addEventListener("click", copyCurl);
$("curl-close").addEventListener("click", () => $("curl").close());
for (const [name, content] of Object.entries(EXAMPLES)) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = name;
  button.dataset.kind = content.kind ?? "";
  button.hidden = Boolean(content.kind);
  button.addEventListener("click", () => replaceBy(content, `Example “${name}” is filled in.`));
  $("examples").append(button);
}
addEventListener("DOMContentLoaded", () => {
  restore();
  loadModel();
});
