// The frame of the page: what the run can do, the navigation, and the view that the address names.
import { Problem, send } from "./api.js";
import { count, fill, h } from "./dom.js";
import { address, current } from "./place.js";
import { Place, problemBox, statusLine } from "./waiting.js";
import * as answer from "./views/answer.js";
import * as audit from "./views/audit.js";
import * as item from "./views/item.js";
import * as recommend from "./views/recommend.js";
import * as report from "./views/report.js";
import * as search from "./views/search.js";

// `ability` is the name in /info of what a view needs; views without `title` are not in the navigation.
const VIEWS = {
  search: { view: search, title: "Search", ability: "search" },
  answer: { view: answer, title: "Answers", ability: "answer" },
  recommend: { view: recommend, title: "Recommend", ability: "recommend" },
  audit: { view: audit, title: "Audit", ability: "audit" },
  report: { view: report, title: "Report", ability: "report" },
  item: { view: item },
};

const main = document.getElementById("main");
let info = null;
let shown = null; // { name, close, update } of the view on the page

async function start() {
  const status = statusLine();
  const region = h("div");
  fill(main, h("h1", { class: "spoken" }, "idiolect"), status, region);
  await new Place(region, status).run(
    "Connecting to the server",
    (signal) => send("info", { signal }),
    (result) => {
      info = result;
      describeRun();
      window.addEventListener("hashchange", () => route(true));
      route(false);
    },
  );
}

function describeRun() {
  document.getElementById("run").textContent = runName(info.run);
  const facts = [
    `${count(info.items)} items`,
    info.model && runName(info.model) !== runName(info.run) && `model ${runName(info.model)}`,
    info.dimensions && `${count(info.dimensions)} dimensions`,
  ];
  document.getElementById("facts").textContent = facts.filter(Boolean).join(" · ");
}

/** The last part of a path. */
function runName(path) {
  return String(path ?? "").split("/").filter(Boolean).at(-1) ?? "";
}

function describeViews(name) {
  const links = Object.entries(VIEWS)
    .filter(([, { title, ability }]) => title && info.abilities?.[ability])
    .map(([other, { title }]) =>
      h("a", { href: address(other), "aria-current": other === name && "page" }, title));
  fill(document.getElementById("views"), links);
}

function route(moved) {
  const [wanted, parameters] = current();
  const name = Object.hasOwn(VIEWS, wanted) ? wanted : "search";
  if (shown?.name === name) {
    shown.update(parameters);
    return;
  }
  shown?.close();
  describeViews(name);
  window.scrollTo(0, 0);
  const { view, title, ability } = VIEWS[name];
  if (title) setTitle(title);
  fill(main);
  if (ability && !info.abilities?.[ability]) {
    fill(main, h("h1", {}, title), problemBox(new Problem("missing", view.missing ?? "This run cannot do this.")));
    shown = { name, update() {}, close() {} };
    return;
  }
  shown = { name, ...view.show(main, info, setTitle) };
  shown.update(parameters);
  if (moved && !main.contains(document.activeElement)) focusHeading();
}

function setTitle(title) {
  document.title = `${title} · ${runName(info.run) || "idiolect"}`;
}

function focusHeading() {
  const heading = main.querySelector("h1") ?? main;
  heading.setAttribute("tabindex", "-1");
  heading.focus({ preventScroll: true });
}

document.querySelector("[data-skip]").addEventListener("click", (event) => {
  event.preventDefault(); // the part of the address after "#" is the view's
  main.focus();
});

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k") {
    event.preventDefault();
    const box = main.querySelector("[data-box]");
    if (box) box.select();
    else location.hash = address("search");
  } else if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    main.querySelector("[data-box]")?.focus();
  } else if (event.key === "ArrowDown" || event.key === "ArrowUp") {
    moveThroughResults(event);
  }
});

/** Arrow keys go from the box into the results and through them. */
function moveThroughResults(event) {
  const from = document.activeElement;
  const box = main.querySelector("[data-box]");
  const list = from?.closest("[data-results]") ?? (from === box ? main.querySelector("[data-results]") : null);
  if (!list || (from === box && box.tagName === "TEXTAREA")) return;
  const links = [...list.querySelectorAll("[data-result]")];
  const at = links.indexOf(from);
  if (from !== box && at < 0) return;
  const next = event.key === "ArrowDown" ? at + 1 : at - 1;
  if (from === box && event.key === "ArrowUp") return;
  event.preventDefault();
  if (next < 0) box?.focus();
  else links[next]?.focus();
}

start();
