// Recommendations for a clicked history: choose items, see what comes next, click on.
import { send } from "../api.js";
import { basket } from "../basket.js";
import { debounce, fill, h, plural } from "../dom.js";
import { hitList, titleOf } from "../hits.js";
import { address, go } from "../place.js";
import { Place, statusLine } from "../waiting.js";

export const missing = "This run has no recommender.";

const FOUND = 6;
const RECOMMENDED = 10;

export function show(main) {
  let history = [];
  const titles = new Map();
  const list = h("ol", { class: "history", "aria-label": "History" });
  const status = statusLine();
  const region = h("div", {});
  const place = new Place(region, status);
  const findStatus = statusLine();
  const findRegion = h("div", { class: "finder" });
  const finder = new Place(findRegion, findStatus);
  const box = h("input", {
    type: "search",
    id: "find",
    "data-box": true,
    placeholder: "Find items to add",
    autocomplete: "off",
    spellcheck: "false",
    oninput: () => find(),
  });

  fill(
    main,
    h("h1", {}, "Recommendations"),
    h("p", { class: "lead" }, "Choose items in the order in which somebody used them; what they are likely to want next is recommended."),
    h(
      "div",
      { class: "two narrow-first" },
      h(
        "section",
        { "aria-labelledby": "history-title" },
        h("h2", { id: "history-title" }, "History"),
        list,
        h("form", { role: "search", onsubmit: (event) => event.preventDefault() }, h("label", { for: "find", class: "spoken" }, "Find items to add"), box),
        findStatus,
        findRegion,
      ),
      h("section", { class: "next", "aria-labelledby": "next-title" }, h("h2", { id: "next-title" }, "Next"), status, region),
    ),
  );

  drawHistory();
  const find = debounce(160, () => {
    if (!box.value.trim()) {
      finder.clear();
      return;
    }
    finder.run(
      "Searching",
      (signal) => send("search", { signal, body: { query: box.value, top_k: FOUND } }),
      ({ hits }) => {
        finder.say(hits.length ? "" : "Nothing was found.");
        fill(findRegion, hits.length > 0 && hitList(hits, { level: 3, label: "Items to add", extra: addButton }));
      },
    );
  });

  function addButton(hit) {
    titles.set(hit.id, titleOf(hit));
    return h(
      "button",
      { type: "button", class: "plain small", "aria-label": `Add to the history: ${titleOf(hit)}`, onclick: () => add(hit.id) },
      "Add to the history",
    );
  }

  function add(id) {
    box.value = "";
    finder.clear();
    set([...history.filter((other) => other !== id), id]);
  }

  function set(ids) {
    basket.set(ids);
    history = basket.get();
    drawHistory();
    go("recommend", { history: ids.length ? JSON.stringify(basket.get()) : null });
  }

  function drawHistory() {
    if (history.length === 0) {
      fill(list);
      list.hidden = true;
      return;
    }
    list.hidden = false;
    fill(list, history.map((id, position) =>
      h(
        "li",
        {},
        h("a", { href: address("item", { id }) }, titles.get(id) ?? id),
        h("button", { type: "button", class: "chip", "aria-label": `Remove ${titles.get(id) ?? id}`, onclick: () => remove(position) }, h("span", { "aria-hidden": "true" }, "×")),
      )));
  }

  function remove(position) {
    set(history.filter((_, other) => other !== position));
    (list.querySelectorAll("button")[Math.min(position, history.length - 1)] ?? box).focus();
  }

  function recommend() {
    if (history.length === 0) {
      place.clear();
      fill(region, h("p", { class: "empty" }, "The history is empty. Find an item on the left to begin."));
      return;
    }
    place.run(
      "Recommending",
      (signal) => send("recommend", { signal, body: { history, top_k: RECOMMENDED } }),
      (answer) => {
        place.say(answer.hits.length ? `${plural(answer.hits.length, "item")} after ${plural(history.length, "item")} of history` : "Nothing can be recommended after this history.");
        fill(region, answer.note && h("p", { class: "note" }, answer.note), answer.hits.length > 0 && hitList(answer.hits, { level: 3, label: "Recommended items", extra: reason }));
      },
    );
  }

  function reason(hit) {
    return h(
      "div",
      { class: "row reason" },
      hit.why?.length > 0 && h("p", { class: "why" }, "because of ", hit.why.map((id) => titles.get(id) ?? id).join(", ")),
      addButton(hit),
    );
  }

  function update(parameters) {
    const ids = readHistory(parameters.get("history")) ?? basket.get();
    if (JSON.stringify(ids) !== JSON.stringify(history)) {
      history = ids;
      basket.set(ids);
      drawHistory();
    }
    recommend();
  }

  return {
    update,
    close() {
      find.cancel();
      place.stop();
      finder.stop();
    },
  };
}

function readHistory(text) {
  try {
    const ids = JSON.parse(text ?? "null");
    return Array.isArray(ids) ? ids.filter((id) => typeof id === "string") : null;
  } catch {
    return null;
  }
}
