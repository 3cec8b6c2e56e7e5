// What the playground shows of answers: the model, scores, step marks, preference probabilities, and what went wrong.

const RIGHT = 0.7; // P(correct) from which a step is called likely right, and 1 - RIGHT below which likely wrong

const make = (tag, className, ...children) => {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children.filter((child) => child !== null)); // strings become text nodes
  return element;
};

const plain = (value, digits = 3) => {
  const size = Math.abs(value);
  const text = size !== 0 && (size < 10 ** -digits || size >= 1e6) ? value.toExponential(digits - 1) : value.toFixed(digits);
  return text.replaceAll("-", "\u2212");
};
const percent = (p) => {
  const shown = (100 * p).toFixed(1);
  if (shown === "100.0" && p < 1) return "> 99.9\u202f%";
  if (shown === "0.0" && p > 0) return "< 0.1\u202f%";
  return `${shown}\u202f%`;
};
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const plural = (count, word) => `${count.toLocaleString("en")} ${word}${count === 1 ? "" : "s"}`;
const ordinal = (n) => n + ({ 1: "st", 2: "nd", 3: "rd" }[n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] ?? "th");

/** A number whose exact value is kept beside what is shown. */
function number(value, text = plain(value)) {
  const element = make("data", "", text);
  element.value = String(value);
  element.title = String(value);
  return element;
}

/** Terms and what they are; a value of null says why there is none. */
function terms(list, entries) {
  list.replaceChildren(
    ...entries.map(([name, value, why]) => {
      const told = make("dd", value === null ? "none" : "", value === null ? why : value);
      return make("div", "", make("dt", "", name), told);
    }),
  );
  return list;
}

function track(share, label) {
  const filled = make("span", "");
  filled.style.width = `${100 * share}%`;
  const bar = make("div", "track", filled);
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", label);
  return bar;
}

// ---- the model ----

const KINDS = {
  sequence: "one score per completion",
  token: "outcome model: a probability of being correct, read at every token",
  step: "process model: a probability of being correct for every step",
};

const calibration = (told) => [
  ["temperature", told.temperature === null ? "not fitted" : `${plain(told.temperature)}, of ${told.unit === "pair" ? "preferences" : "outcomes"}`],
  ["reference set", told.reference ? plural(told.reference.num_scores, "score") : "none"],
];

function showModel(told) {
  model = told;
  $("model-name").textContent = told.name;
  $("model-what").textContent = KINDS[told.kind] + (told.members.length ? `, of an ensemble of ${told.members.length}` : "");
  terms($("model-facts"), [
    ["fingerprint", code(told.fingerprint)],
    ["architecture", told.architecture],
    ["dtype", told.dtype],
    ["device", told.device],
    ["layout", told.layout],
    ["max length", plural(told.max_length, "token")],
    ...(told.members.length ? [] : calibration(told)),
  ]);
  for (const button of $("examples").querySelectorAll("button")) button.hidden = !["", told.kind].includes(button.dataset.kind);
  const missing = [told.reference ? "" : "percentile and z", told.temperature === null ? "calibrated scores" : ""].filter(Boolean);
  $("model-remark").hidden = missing.length === 0 && told.members.length === 0;
  $("model-remark").textContent = told.members.length
    ? `An ensemble gives its own score alone: ${told.how} of its ${told.members.length} members\u2019 ${told.members_scale ? `${told.members_scale} ` : ""}scores.`
    : `This model cannot give ${missing.join(", nor ")}: rewardlab calibrate fits what they need.`;
  $("per-step").hidden = told.kind !== "step";
}

const isEnsemble = () => model.members.length > 0;

function code(text) {
  const element = make("code", "", text.slice(0, 12));
  element.title = text;
  return element;
}

function showNoModel(why) {
  $("model-name").textContent = "No model answers";
  $("model-what").textContent = why;
}

// ---- scores ----

function clearResults() {
  for (const item of completions()) {
    item.classList.remove("best", "stale");
    item.querySelector(".result").hidden = true;
    item.querySelector(".result").replaceChildren();
    fault(item, "");
  }
  $("preference").hidden = true;
  $("preference").classList.remove("stale");
}

/** What was scored is no longer what stands there. */
function markStale() {
  for (const item of completions()) item.classList.toggle("stale", !item.querySelector(".result").hidden);
  $("preference").classList.toggle("stale", !$("preference").hidden);
}

function showResults(results, request, comparison) {
  clearResults();
  const scored = results.filter((result) => !result.error);
  const sorted = scored.map((result) => result.raw).sort((a, b) => b - a);
  results.forEach((result, index) => {
    const item = completions()[index];
    if (result.error) return fault(item, inWords(result.error));
    const rank = sorted.indexOf(result.raw) + 1;
    item.classList.toggle("best", rank === 1 && scored.length > 1);
    showScore(item.querySelector(".result"), result, rank, sorted, request.steps?.[index]);
  });
  showPreference(results, comparison);
  const refused = results.length - scored.length;
  const order = results.filter((result) => !result.error).sort((a, b) => b.raw - a.raw);
  const said = order.map((result) => `${letter(result.index)} ${plain(result.raw)}`).join(", ");
  $("status").textContent =
    (scored.length > 1 ? `Scored, best first: ${said}.` : scored.length ? `Scored: ${said}.` : "") +
    (refused ? ` ${plural(refused, "completion")} could not be scored; see beside it.` : "");
}

function showScore(place, result, rank, sorted, steps) {
  const ties = sorted.filter((raw) => raw === result.raw).length;
  const ranked = sorted.length > 1 ? `${ordinal(rank)} of ${sorted.length}${ties > 1 ? ", tied" : ""}` : null;
  place.replaceChildren(
    make("p", "figure", number(result.raw), make("span", "unit", isEnsemble() ? "ensemble score" : "raw score"), ranked && make("span", "rank", ranked)),
  );
  if (result.percentile !== null) {
    const of = model.reference ? ` of ${plural(model.reference.num_scores, "reference")}` : "";
    const words = make("p", "", "percentile ", strong(number(result.percentile, plain(result.percentile, 1))), of);
    place.append(make("div", "percentile", track(result.percentile / 100, `Percentile ${result.percentile.toFixed(1)}`), words));
  }
  const entries = [["tokens", number(result.num_tokens, String(result.num_tokens))]];
  if (!isEnsemble()) {
    entries.unshift(
      ["calibrated", result.calibrated === null ? null : number(result.calibrated), "not fitted"],
      ["z", result.z === null ? null : number(result.z, plain(result.z, 2)), "no reference"],
    );
  }
  if (result.disagreement !== null) entries.push(["disagreement", number(result.disagreement)]);
  place.append(terms(make("dl", "figures"), entries));
  if (result.truncated) {
    place.append(make("p", "flag", `Truncated: the oldest part of the prompt was cut to fit ${plural(model.max_length, "token")}.`));
  }
  if (result.step_scores) place.append(stepMarks(result.step_scores, steps));
  place.hidden = false;
}

function stepMarks(scores, texts) {
  const list = make("ol", "steps");
  scores.forEach((p, index) => {
    const [kind, sign, word] =
      p >= RIGHT ? ["right", "\u2713", "likely right"] : p <= 1 - RIGHT ? ["wrong", "\u2717", "likely wrong"] : ["unsure", "?", "unsure"];
    const text = texts?.[index] ?? `Step ${index + 1}, as the model splits`;
    const line = make("p", "mark-line", make("span", "word", `${sign} ${word}`), make("span", "", "P(correct) ", number(p)), track(p, `${percent(p)} correct`));
    const shown = make("span", "text", text);
    shown.dir = "auto";
    list.append(make("li", kind, shown, line));
  });
  return list;
}

// ---- preferences ----

function showPreference(results, comparison) {
  const scored = results.filter((result) => !result.error);
  if (scored.length < 2) return;
  const fitted = model.unit === "pair" && model.temperature !== null;
  const temperature = comparison?.temperature ?? (fitted ? model.temperature : 1);
  const chance = (a, b) => comparison?.probability ?? sigmoid((a.raw - b.raw) / temperature);
  const shown = scored.length === 2 ? split(...scored, chance(...scored)) : matrix(scored, (a, b) => sigmoid((a.raw - b.raw) / temperature));
  $("preference-body").replaceChildren(...shown, make("p", "note", noteOn(comparison?.fitted ?? fitted, temperature)));
  $("preference").hidden = false;
}

function split(a, b, p) {
  const [first, second] = [letter(a.index), letter(b.index)];
  const bar = make("div", "split", make("span"), make("span"));
  bar.children[0].style.flexGrow = p;
  bar.children[1].style.flexGrow = 1 - p;
  bar.setAttribute("role", "img");
  bar.setAttribute("aria-label", `${first} ${percent(p)}, ${second} ${percent(1 - p)}`);
  const [winner, loser, won] = p < 0.5 ? [second, first, 1 - p] : [first, second, p];
  return [
    make("p", "lead", `${winner} is preferred to ${loser} with probability `, strong(number(won, percent(won))), "."),
    bar,
    make("p", "ends", make("span", "", `${first} ${percent(p)}`), make("span", "", `${second} ${percent(1 - p)}`)),
  ];
}

function matrix(scored, chance) {
  const [best, next] = [...scored].sort((a, b) => b.raw - a.raw);
  const p = chance(best, next);
  const header = (name, scope) => Object.assign(make("th", "", name), { scope });
  const head = make("tr", "", make("td"), ...scored.map((one) => header(letter(one.index), "col")));
  const rows = scored.map((row) =>
    make("tr", "", header(letter(row.index), "row"), ...scored.map((column) => {
      if (row === column) return make("td", "soft", "\u2013");
      const q = chance(row, column);
      return make("td", q > 0.5 ? "won" : "", number(q, percent(q)));
    })),
  );
  const table = make("table", "", make("caption", "", "Probability that the row is preferred to the column"), make("thead", "", head), make("tbody", "", ...rows));
  const region = make("div", "matrix", table);
  region.tabIndex = 0;
  region.setAttribute("role", "region");
  region.setAttribute("aria-label", "Preference probabilities");
  const lead = make("p", "lead", `${letter(best.index)} is preferred to the runner-up ${letter(next.index)} with probability `, strong(number(p, percent(p))), ".");
  return [lead, region];
}

const strong = (child) => make("strong", "", child);

function noteOn(fitted, temperature) {
  const always = isEnsemble() ? " Scores compare only within a prompt." : " Raw scores compare only within a prompt.";
  if (isEnsemble()) return `An ensemble has no temperature of its own, so this is the sigmoid of the score difference: which one is ahead can be read from it, how surely cannot.${always}`;
  if (fitted) return `Calibrated: the sigmoid of the score difference over T = ${plain(temperature)}, which was fitted on preferences.${always}`;
  const why = model.temperature === null ? "No temperature is fitted" : "The temperature was fitted on outcomes of single completions, not on preferences";
  return `${why}, so this is the sigmoid of the raw score difference (T = 1): which one is ahead can be read from it, how surely cannot.${always}`;
}

// ---- what went wrong ----

const inWords = (error) => (error.hint ? `${error.message}; ${error.hint}` : error.message);

/** Says beside a field what is wrong with it; an empty text takes it back. */
function fault(place, text, item = place) {
  const told = place.querySelector(".fault");
  told.textContent = text;
  told.hidden = !text;
  for (const field of place.querySelectorAll("textarea")) {
    const isMeant = Boolean(text) && (item === place || item?.contains(field) || item === null);
    field.toggleAttribute("aria-invalid", false);
    if (isMeant) {
      field.setAttribute("aria-invalid", "true");
      field.setAttribute("aria-describedby", told.id);
    } else field.removeAttribute("aria-describedby");
  }
}

/** What went wrong with the whole request, and a way to try again where that makes sense. */
function problem(error) {
  const place = $("problem");
  place.hidden = error === null;
  place.replaceChildren();
  if (error === null) return;
  place.append(make("p", "", strong(error.status === 503 ? "The server cannot answer now." : "The server refused the request.")), make("p", "", error.message));
  if (error.status === 503) {
    if (error.wait) place.append(make("p", "soft", `It asks to wait ${plural(error.wait, "second")}.`));
    const again = make("button", "", "Try again");
    again.type = "button";
    again.addEventListener("click", () => {
      $("score").focus();
      score();
    });
    place.append(again);
  }
  $("status").textContent = "Not scored.";
}
