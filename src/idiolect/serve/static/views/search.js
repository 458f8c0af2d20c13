// Search as you type, in one mode or several side by side, with filters.
import { send } from "../api.js";
import { count, debounce, fill, h, plural } from "../dom.js";
import { Filters, readFilter } from "../filters.js";
import { hitList } from "../hits.js";
import { go, note } from "../place.js";
import { Place, statusLine } from "../waiting.js";
import { Comparison } from "./comparison.js";

const PAUSE = 140; // milliseconds without a key until a search starts
const PAGE = 10;
const MOST = 100;
const wide = matchMedia("(min-width: 68rem)");

export const MODES = {
  hybrid: { label: "Both", title: "By words and meaning", adverb: "by words and meaning" },
  dense: { label: "Meaning", title: "By meaning", adverb: "by meaning" },
  lexical: { label: "Words", title: "By words", adverb: "by words" },
};

const COMPARISONS = {
  modes: { label: "Side by side", needs: (info) => info.modes.length > 1 },
  systems: { label: "Before and after", needs: (info) => info.systems?.length > 1 && info.modes.includes("dense") },
};

export function show(main, info) {
  const modes = Object.keys(MODES).filter((mode) => info.modes.includes(mode));
  const choices = [
    ...modes.map((mode) => [mode, MODES[mode].label]),
    ...Object.entries(COMPARISONS).filter(([, { needs }]) => needs(info)).map(([name, { label }]) => [name, label]),
  ];
  let meant = null; // the last search that was sent with Enter
  const state = { q: "", mode: modes[0], filter: null, k: PAGE };

  const box = h("input", {
    type: "search",
    id: "query",
    "data-box": true,
    placeholder: `Search ${count(info.items)} items`,
    autocomplete: "off",
    autocapitalize: "none",
    spellcheck: "false",
    enterkeyhint: "search",
    oninput: () => typed(),
  });
  const filters = new Filters(info.fields, (filter) => change({ filter, k: PAGE }));
  const switcher = radios(choices, (mode) => change({ mode, k: PAGE }));
  const status = statusLine();
  const region = h("div", { class: "results" });
  const place = new Place(region, status);
  const comparison = new Comparison(info, modes);
  const body = h("div", { class: "found" }, filters.panel, h("div", {}, status, region));

  fill(
    main,
    h("h1", { class: "spoken" }, "Search"),
    h(
      "form",
      { role: "search", class: "search", onsubmit: (event) => submit(event) },
      h("label", { for: "query", class: "spoken" }, "Search"),
      box,
      h("div", { class: "tools" }, switcher.element, filters.button),
      filters.chips,
    ),
    body,
  );

  const parameters = () => ({
    q: state.q,
    mode: state.mode === modes[0] ? null : state.mode,
    filter: state.filter && JSON.stringify(state.filter),
    k: state.k === PAGE ? null : state.k,
  });
  const soon = debounce(PAUSE, () => search());

  function typed() {
    state.q = box.value;
    state.k = PAGE;
    note("search", parameters());
    soon();
  }

  function submit(event) {
    event.preventDefault();
    soon.cancel();
    if (meant !== location.hash) history.pushState(null, "", location.href); // a step for Back
    meant = location.hash;
    search();
  }

  function change(parts) {
    Object.assign(state, parts);
    go("search", parameters());
  }

  function search() {
    soon.cancel();
    document.title = `${state.q.trim() || "Search"} · ${String(info.run).split("/").filter(Boolean).at(-1) ?? ""}`;
    comparison.stop();
    if (!state.q.trim()) {
      place.clear();
      fill(region, welcome(info));
      return;
    }
    if (state.mode in COMPARISONS) {
      place.stop();
      comparison.show(region, status, state);
      return;
    }
    place.run("Searching", ask, found);
  }

  const ask = (signal) =>
    send("search", {
      signal,
      body: { query: state.q, top_k: state.k, mode: state.mode, filter: state.filter },
    });

  function found(answer) {
    const { hits } = answer;
    const adverb = MODES[answer.mode]?.adverb ?? "";
    if (hits.length === 0) {
      place.say("Nothing was found.");
      fill(region, noteLine(answer.note), nothing(state, filters, () => change({ filter: null })));
      return;
    }
    place.say(`${plural(hits.length, "result")} ${adverb}${time(answer.took_ms)}`);
    fill(
      region,
      noteLine(answer.note),
      hitList(hits),
      hits.length === state.k && state.k < MOST &&
        h("button", { type: "button", class: "plain more", onclick: more }, "More results"),
    );
  }

  function more() {
    const seen = state.k;
    state.k = Math.min(state.k + PAGE, MOST);
    note("search", parameters());
    place.run("Searching", ask, (answer) => {
      found(answer);
      region.querySelectorAll("[data-result]")[seen]?.focus();
    });
  }

  function update(address) {
    state.q = address.get("q") ?? "";
    const mode = address.get("mode");
    state.mode = choices.some(([name]) => name === mode) ? mode : modes[0];
    state.filter = readFilter(address.get("filter"));
    const k = Number.parseInt(address.get("k"), 10);
    state.k = k >= 1 ? Math.min(k, MOST) : PAGE;
    if (box.value !== state.q) box.value = state.q;
    switcher.set(state.mode);
    filters.set(state.filter);
    body.classList.toggle("single", !(state.mode in COMPARISONS));
    filters.open(wide.matches && !(state.mode in COMPARISONS));
    search();
  }

  if (matchMedia("(hover: hover)").matches) box.focus({ preventScroll: true });
  return {
    update,
    close() {
      soon.cancel();
      place.stop();
      comparison.stop();
    },
  };
}

function radios(choices, chosen) {
  const inputs = choices.map(([name, label]) => {
    const input = h("input", { type: "radio", name: "mode", value: name, onchange: () => chosen(name) });
    return h("label", {}, input, h("span", {}, label));
  });
  const element = h("fieldset", { class: "segments" }, h("legend", { class: "spoken" }, "How to search"), inputs);
  return {
    element,
    set(name) {
      for (const input of element.querySelectorAll("input")) input.checked = input.value === name;
    },
  };
}

export function time(milliseconds) {
  return Number.isFinite(milliseconds) ? ` in ${count(Math.max(1, Math.round(milliseconds)))} ms` : "";
}

export function noteLine(words) {
  return words && h("p", { class: "note" }, words);
}

function nothing(state, filters, without) {
  return h(
    "div",
    { class: "empty" },
    h("p", {}, state.filter ? "No item that passes the filters matches." : "No item matches."),
    state.mode === "lexical" &&
      h("p", {}, "By words, an item must contain at least one word of the search. By meaning, it need not."),
    state.filter && h("button", { type: "button", class: "plain", onclick: without }, "Search without filters"),
  );
}

function welcome(info) {
  const lines = {
    lexical: ["Words", "finds items that contain the words of the search, rare words first (BM25)."],
    dense: ["Meaning", "finds items whose vectors are close to that of the search, whatever their words."],
    hybrid: ["Both", "combines the two rankings, and is the default."],
  };
  return h(
    "div",
    { class: "welcome" },
    h("p", { class: "large" }, "Describe what you are looking for."),
    h(
      "dl",
      {},
      info.modes.filter((mode) => mode in lines).map((mode) => [h("dt", {}, lines[mode][0]), h("dd", {}, lines[mode][1])]),
    ),
  );
}
