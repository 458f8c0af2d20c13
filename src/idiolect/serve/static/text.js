// Texts and places in them. The server counts characters (code points); JavaScript's strings count
// UTF-16 units, of which a character outside the first plane takes two.
import { h } from "./dom.js";

const WIDE = /[\ud800-\udbff][\udc00-\udfff]/;

/** A text that is cut at the server's offsets. */
export class Text {
  constructor(text) {
    this.characters = WIDE.test(text) ? Array.from(text) : text;
    this.length = this.characters.length;
  }

  slice(start, end) {
    const part = this.characters.slice(start, end);
    return typeof part === "string" ? part : part.join("");
  }
}

/** Sorted ranges [start, end] in which none overlaps another, cut to those between two bounds. */
export function merged(ranges, from = 0, to = Infinity) {
  const result = [];
  const inside = ranges
    .map(([start, end]) => [Math.max(start, from), Math.min(end, to)])
    .filter(([start, end]) => start < end)
    .sort((a, b) => a[0] - b[0]);
  for (const [start, end] of inside) {
    const last = result.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else result.push([start, end]);
  }
  return result;
}

/** The part of a text between two offsets as nodes, with ranges in `<mark>`. */
export function marked(text, ranges, from = 0, to = text.length) {
  const nodes = [];
  let at = from;
  for (const [start, end] of merged(ranges, from, to)) {
    nodes.push(text.slice(at, start), h("mark", {}, text.slice(start, end)));
    at = end;
  }
  nodes.push(text.slice(at, to));
  return nodes;
}

const LENGTH = 260;

/** What of a result's text is shown in a list: [from, to], around its passage or its first match. */
export function excerpt(text, passage, ranges) {
  if (text.length <= LENGTH) return [0, text.length];
  if (passage && passage.end - passage.start <= 2 * LENGTH) return [passage.start, passage.end];
  const first = passage?.start ?? merged(ranges)[0]?.[0] ?? 0;
  if (first < LENGTH / 2 && !passage) return [0, atSpace(text, LENGTH)];
  const from = passage ? first : atSpace(text, first - LENGTH / 4);
  return [from, atSpace(text, from + LENGTH)];
}

function atSpace(text, position) {
  if (position <= 0) return 0;
  if (position >= text.length) return text.length;
  const space = text.slice(position, position + 24).search(/\s/);
  return space < 0 ? position : position + space;
}

/** Places of words in a text, whole and whatever their case: [[start, end], …]. */
export function places(text, words) {
  const whole = text.slice(0, text.length);
  const found = [];
  for (const word of words) {
    const escaped = word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
    const pattern = new RegExp(`(?<![\\p{L}\\p{N}_])${escaped}(?![\\p{L}\\p{N}_])`, "giu");
    for (const match of whole.matchAll(pattern)) {
      const start = Array.from(whole.slice(0, match.index)).length;
      found.push([start, start + Array.from(match[0]).length]);
    }
  }
  return found;
}
