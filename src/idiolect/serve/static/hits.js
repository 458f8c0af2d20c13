// Results as they are listed: a title that leads to the item, its passage, what matched, its metadata.
import { h, spoken } from "./dom.js";
import { address } from "./place.js";
import { excerpt, marked, Text } from "./text.js";

/** How an item is called: its title, if its metadata has one, otherwise its id. */
export function titleOf(item) {
  const { title, name } = item.metadata ?? {};
  return [title, name].find((one) => typeof one === "string" && one.trim()) ?? item.id;
}

/** A title that may be broken after its dots, underlines and slashes instead of anywhere. */
export function breakable(title) {
  return title.split(/(?<=[._/:-])(?=\w)/).flatMap((part, number) => (number ? [h("wbr"), part] : [part]));
}

/** Scores of different modes have different scales; 4 significant digits fit all of them. */
export function scoreWords(score) {
  if (!Number.isFinite(score)) return "";
  return Math.abs(score) >= 100 ? score.toFixed(0) : score.toFixed(Math.abs(score) >= 10 ? 1 : 3);
}

/** The list of results. `extra(hit)` adds nodes below one; `level` is the level of its headings. */
export function hitList(hits, { extra = () => null, level = 2, label = "Results" } = {}) {
  return h(
    "ol",
    { class: "hits", "data-results": true, "aria-label": label },
    hits.map((hit, rank) => hitEntry(hit, rank + 1, level, extra)),
  );
}

function hitEntry(hit, rank, level, extra) {
  const text = new Text(hit.text ?? "");
  return h(
    "li",
    { "data-id": hit.id },
    h(
      "div",
      { class: "head" },
      h("span", { class: "rank", "aria-hidden": "true" }, String(rank)),
      h(`h${level}`, {}, h("a", { href: address("item", { id: hit.id }), "data-result": true }, breakable(titleOf(hit)))),
      h("span", { class: "score", title: "Score" }, spoken("Score "), scoreWords(hit.score)),
    ),
    snippet(text, hit),
    metadataLine(hit.metadata),
    extra(hit, rank),
  );
}

function snippet(text, hit) {
  if (text.length === 0) return null;
  const ranges = worthMarking(text, hit.highlights ?? []);
  const [from, to] = excerpt(text, hit.passage, ranges);
  return h(
    "p",
    { class: "snippet" },
    from > 0 && "… ",
    marked(text, ranges, from, to),
    to < text.length && " …",
  );
}

const SHORT = /^[a-z]{1,2}$/i;

/** Matches without the "a" and "of" among them, if there are others. */
function worthMarking(text, ranges) {
  const longer = ranges.filter(([start, end]) => !SHORT.test(text.slice(start, end)));
  return longer.length ? longer : ranges;
}

/** The metadata that is short enough for a line. */
function metadataLine(metadata) {
  const pairs = Object.entries(metadata ?? {}).filter(
    ([name, value]) => !["title", "name"].includes(name) && valueWords(value).length <= 40 && valueWords(value),
  );
  if (pairs.length === 0) return null;
  return h(
    "p",
    { class: "fields" },
    pairs.slice(0, 4).map(([name, value]) => h("span", {}, h("span", { class: "name" }, `${name} `), valueWords(value))),
  );
}

/** A value of the metadata in words. */
export function valueWords(value) {
  if (value === null || value === undefined) return "";
  if (Array.isArray(value)) return value.map(valueWords).join(", ");
  if (typeof value === "object") return JSON.stringify(value);
  return String(value);
}
