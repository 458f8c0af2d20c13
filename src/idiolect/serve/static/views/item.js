// One item: its text and metadata, and the items most like it with the words they share.
import { send } from "../api.js";
import { basket } from "../basket.js";
import { fill, h } from "../dom.js";
import { breakable, hitList, titleOf, valueWords } from "../hits.js";
import { address } from "../place.js";
import { marked, places, Text } from "../text.js";
import { Place, statusLine } from "../waiting.js";

const SIMILAR = 10;

export function show(main, info, setTitle) {
  const status = statusLine();
  const region = h("div", {});
  const place = new Place(region, status);
  const nearStatus = statusLine();
  const nearRegion = h("div", {});
  const near = new Place(nearRegion, nearStatus);
  const waiting = h("h1", { class: "spoken" }, "Item"); // until it is there
  let words = new Set(); // marked in the item's text
  let body = null;
  let text = null;

  const beside = h(
    "section",
    { class: "near", "aria-labelledby": "near-title" },
    h("h2", { id: "near-title" }, "Similar items"),
    nearStatus,
    nearRegion,
  );
  fill(
    main,
    h("p", { class: "back" }, h("a", { href: address("search"), onclick: back }, "← Back")),
    h(
      "div",
      { class: "two" },
      h("article", { class: "item" }, waiting, status, region),
      beside,
    ),
  );

  function update(parameters) {
    const id = parameters.get("id") ?? "";
    words = new Set();
    near.clear();
    waiting.hidden = false;
    beside.hidden = true;
    place.run("Reading the item", (signal) => send(`items/${encodeURIComponent(id)}`, { signal }), (item) => {
      setTitle(titleOf(item));
      waiting.hidden = true;
      beside.hidden = false;
      place.say("");
      text = new Text(item.text ?? "");
      body = h("div", { class: "text" });
      draw();
      fill(region, heading(item), h("div", { class: "row" }, actions(item, info)), metadata(item), body);
      region.querySelector("h1").focus({ preventScroll: true });
      window.scrollTo(0, 0);
      loadSimilar(id);
    });
  }

  function loadSimilar(id) {
    near.run(
      "Looking for similar items",
      (signal) => send("similar", { signal, body: { id, top_k: SIMILAR } }),
      ({ hits }) => {
        near.say(hits.length ? "" : "No other item is similar.");
        const why = (hit) => shared(hit.why ?? []);
        fill(nearRegion, hits.length > 0 && hitList(hits, { level: 3, label: "Similar items", extra: why }));
      },
    );
  }

  /** Why an item is similar: the terms in common, each of which can be marked in the text. */
  function shared(terms) {
    if (terms.length === 0) return h("p", { class: "why" }, "Close in meaning; no term in common.");
    return h(
      "p",
      { class: "why" },
      h("span", { class: "name" }, "in common "),
      terms.map((term) =>
        h("button", { type: "button", class: "term", "data-term": term, "aria-pressed": "false", onclick: () => toggle(term) }, term)),
    );
  }

  function toggle(term) {
    if (!words.delete(term)) words.add(term);
    for (const button of nearRegion.querySelectorAll("[data-term]")) {
      button.setAttribute("aria-pressed", String(words.has(button.dataset.term)));
    }
    draw();
    const mark = body.querySelector("mark");
    if (words.has(term) && mark && !inView(mark)) mark.scrollIntoView({ block: "center" });
  }

  function draw() {
    fill(body, marked(text, places(text, words)));
  }

  return {
    update,
    close() {
      place.stop();
      near.stop();
    },
  };
}

function back(event) {
  if (history.length > 1) {
    event.preventDefault();
    history.back();
  }
}

function inView(element) {
  const { top, bottom } = element.getBoundingClientRect();
  return top >= 0 && bottom <= innerHeight;
}

function heading(item) {
  const title = titleOf(item);
  return [h("h1", { tabindex: "-1" }, breakable(title)), title !== item.id && h("p", { class: "fields" }, item.id)];
}

function actions(item, info) {
  return [
    info.abilities?.recommend && historyButton(item.id),
    info.abilities?.audit && h("a", { class: "button plain", href: address("audit", { item: item.id }) }, "Audit this text"),
  ];
}

function historyButton(id) {
  const button = h("button", { type: "button", class: "plain" });
  const name = () => {
    button.textContent = basket.has(id) ? "In the history" : "Add to the history";
    button.setAttribute("aria-pressed", String(basket.has(id)));
  };
  button.addEventListener("click", () => {
    if (basket.has(id)) basket.set(basket.get().filter((other) => other !== id));
    else basket.add(id);
    name();
  });
  name();
  return button;
}

function metadata(item) {
  const pairs = Object.entries(item.metadata ?? {}).filter(
    ([, value]) => valueWords(value) !== "" && value !== titleOf(item));
  return pairs.length > 0 && h("dl", { class: "metadata" }, pairs.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, valueWords(value)))));
}
