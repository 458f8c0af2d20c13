// Several searches for one query side by side: modes, or the systems of a run before and after. Each
// result says where the others have it.
import { send } from "../api.js";
import { fill, h, plural, spoken } from "../dom.js";
import { hitList } from "../hits.js";
import { Place, statusLine } from "../waiting.js";

const SHOWN = matchMedia("(max-width: 44rem)").matches ? 5 : 8;
const DEPTH = 50; // how far the others are searched for a result's place there

const MODE_TITLES = { lexical: "Words", dense: "Meaning", hybrid: "Both" };

export class Comparison {
  constructor(info, modes) {
    const order = ["lexical", "dense", "hybrid"].filter((mode) => modes.includes(mode));
    this.sides = {
      modes: order.map((mode) => ({ title: MODE_TITLES[mode], short: MODE_TITLES[mode], body: { mode } })),
      // By meaning alone: the words of both sides are the same.
      systems: (info.systems ?? []).map(({ name, label }) => ({
        title: label,
        short: label.split(":")[0],
        body: { system: name, mode: "dense" },
      })),
    };
    this.columns = [];
    this.kind = null;
  }

  stop() {
    for (const column of this.columns) column.place.stop();
  }

  /** Search for `state.q` on all sides; columns that are there already stay and are filled anew. */
  show(region, status, state) {
    if (this.kind !== state.mode || !region.contains(this.columns[0]?.element)) {
      this.kind = state.mode;
      this.columns = this.sides[state.mode].map((side, number) => makeColumn(side, number));
      fill(region, h("div", { class: "columns" }, this.columns.map((column) => column.element)));
      region.addEventListener("mouseover", (event) => this.mark(event.target.closest("[data-id]")?.dataset.id));
      region.addEventListener("focusin", (event) => this.mark(event.target.closest("[data-id]")?.dataset.id));
      region.addEventListener("mouseleave", () => this.mark(undefined));
    }
    status.textContent = "";
    for (const column of this.columns) {
      column.hits = null;
      column.place.run(
        "Searching",
        (signal) =>
          send("search", {
            signal,
            body: { query: state.q, top_k: DEPTH, filter: state.filter, ...column.side.body },
          }),
        (answer) => {
          column.hits = answer.hits;
          column.note = answer.note;
          this.draw();
          if (this.columns.every(({ hits }) => hits)) status.textContent = this.summary();
        },
      );
    }
  }

  draw() {
    for (const column of this.columns.filter(({ hits }) => hits)) {
      const first = column.hits.slice(0, SHOWN);
      column.place.say("");
      fill(
        column.place.region,
        column.note && h("p", { class: "note" }, column.note),
        first.length === 0 && h("p", { class: "empty" }, "Nothing was found."),
        first.length > 0 &&
          hitList(first, {
            level: 3,
            label: `Results: ${column.side.title}`,
            extra: (hit) => this.elsewhere(column, hit),
          }),
      );
    }
  }

  /** Where the other columns have a result. */
  elsewhere(column, hit) {
    const others = this.columns.filter((other) => other !== column && other.hits);
    const parts = others.map((other) => {
      const there = other.hits.findIndex(({ id }) => id === hit.id) + 1;
      const words = `${other.side.short} ${there > 0 ? there : "–"}`;
      const meaning = there > 0 ? null : spoken(` not among ${DEPTH}`);
      return h("span", { class: there === 0 && "gone" }, words, meaning);
    });
    return parts.length > 0 && h("p", { class: "elsewhere" }, parts);
  }

  summary() {
    const top = this.columns.map(({ hits }) => new Set(hits.slice(0, SHOWN).map(({ id }) => id)));
    const all = new Set(top.flatMap((ids) => [...ids]));
    const shared = [...all].filter((id) => top.every((ids) => ids.has(id)));
    const how = this.kind === "systems" ? "By meaning: " : "";
    return `${how}${plural(all.size, "item")} among the first ${SHOWN} of each side, ${shared.length} of them on every side.`;
  }

  /** Mark one item wherever it stands. */
  mark(id) {
    for (const { element } of this.columns) {
      for (const entry of element.querySelectorAll("[data-id]")) {
        entry.classList.toggle("same", id !== undefined && entry.dataset.id === id);
      }
    }
  }
}

function makeColumn(side, number) {
  const status = statusLine();
  const region = h("div", {});
  const id = `side-${number}`;
  const element = h("section", { class: "column", "aria-labelledby": id }, h("h2", { id }, side.title), status, region);
  return { side, element, place: new Place(region, status), hits: null, note: null };
}
