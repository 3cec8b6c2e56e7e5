"use strict";
// The API page: which routes have the words that are looked for, and examples that name this server.

const search = document.getElementById("search");
const routes = [...document.querySelectorAll(".route")];
const clients = [...document.querySelectorAll("#clients tbody tr")];
const texts = routes.map((route) => `${route.closest(".dialect").querySelector("h2").textContent} ${route.textContent}`.toLowerCase());

const here = new URL(".", location.href); // without a user and key in the address, which fetch refuses
here.username = here.password = here.search = here.hash = "";

for (const place of document.querySelectorAll(".origin")) place.textContent = here.origin;

/** Examples of rendered text become what the loaded model's own chat template makes of the same conversation. */
async function renderAsTheModelDoes() {
  const response = await fetch(new URL("info", here), { cache: "no-store" }).catch(() => null);
  if (!response?.ok) return; // no model yet: the text stays, and its note says what it is
  const { model } = await response.json();
  const notes = document.querySelectorAll(".rendered-note");
  if (!model.reads_rendered_text) {
    for (const note of notes) note.textContent = "This model takes no rendered text: send messages, or prompt and completion.";
  } else if (model.rendered_example) {
    const text = JSON.stringify(model.rendered_example).replaceAll("'", "'\\''"); // as it stands between the shell's quotes
    for (const place of document.querySelectorAll(".rendered")) place.textContent = text;
    for (const note of notes) note.textContent = `The text is as the chat template of ${model.name} renders it. In another one it gets a number too, which means nothing.`;
  }
}
renderAsTheModelDoes();

for (const figure of document.querySelectorAll("figure.code:first-child")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet copy";
  button.textContent = "Copy";
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(figure.querySelector("pre").textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(figure.querySelector("pre")); // the clipboard is there only on https and localhost
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  figure.querySelector("figcaption").append(button);
}

function find() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  routes.forEach((route, index) => {
    route.hidden = !words.every((word) => texts[index].includes(word));
  });
  for (const client of clients) client.hidden = !words.every((word) => client.textContent.toLowerCase().includes(word));
  for (const dialect of document.querySelectorAll(".dialect")) {
    const own = dialect.id === "clients" ? clients : [...dialect.querySelectorAll(".route")];
    dialect.hidden = words.length > 0 && own.every((route) => route.hidden);
  }
  const count = routes.filter((route) => !route.hidden).length;
  document.getElementById("found").textContent = words.length ? `${count} of ${routes.length} routes` : "";
}

search.addEventListener("input", find);
document.addEventListener("keydown", (event) => {
  if (event.key === "/" && document.activeElement !== search && !event.ctrlKey && !event.metaKey && !event.altKey) {
    event.preventDefault();
    search.focus();
  } else if (event.key === "Escape" && search.value) {
    search.value = "";
    find();
  }
});
addEventListener("hashchange", () => {
  if (document.querySelector(".route[hidden], .dialect[hidden]")) {
    search.value = ""; // what a link leads to is shown
    find();
    document.getElementById(location.hash.slice(1))?.scrollIntoView();
  }
});
