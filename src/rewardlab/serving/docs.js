"use strict";
// The API page: which routes have the words that are looked for, and examples that name this server.

const search = document.getElementById("search");
const routes = [...document.querySelectorAll(".route")];
const texts = routes.map((route) => `${route.closest(".dialect").querySelector("h2").textContent} ${route.textContent}`.toLowerCase());

for (const place of document.querySelectorAll(".origin")) place.textContent = new URL(".", location.href).origin;

function find() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  routes.forEach((route, index) => {
    route.hidden = !words.every((word) => texts[index].includes(word));
  });
  for (const dialect of document.querySelectorAll(".dialect")) {
    const own = [...dialect.querySelectorAll(".route")];
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
