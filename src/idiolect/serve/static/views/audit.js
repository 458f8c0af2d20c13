// How the base and the adapted vocabulary break a pasted text, side by side.
import { send } from "../api.js";
import { count, debounce, fill, h, plural } from "../dom.js";
import { note } from "../place.js";
import { Text } from "../text.js";
import { Place, statusLine } from "../waiting.js";

export const missing = "This run has no adapted vocabulary to compare with its base.";

const PAUSE = 250;
const SHARED = 1_500; // characters of text that are kept in the address
const LISTED = 40; // terms in the table

export function show(main) {
  const status = statusLine();
  const region = h("div", { class: "results" });
  const place = new Place(region, status);
  const box = h("textarea", {
    id: "text",
    "data-box": true,
    rows: "7",
    spellcheck: "false",
    placeholder: "Paste a text of your domain",
    oninput: () => typed(),
  });
  fill(
    main,
    h("h1", {}, "Audit a text"),
    h("p", { class: "lead" }, "See how the vocabulary of the base breaks a text into tokens, and what the new tokens change."),
    h("label", { for: "text", class: "spoken" }, "Text"),
    box,
    status,
    region,
  );

  const soon = debounce(PAUSE, audit);

  function typed() {
    note("audit", { text: box.value.length <= SHARED ? box.value : null });
    soon();
  }

  function audit() {
    const text = box.value;
    if (!text.trim()) {
      place.clear();
      return;
    }
    place.run("Breaking the text into tokens", (signal) => send("audit", { signal, body: { text } }), (answer) => {
      place.say(summary(answer));
      fill(region, drawAudit(new Text(text), answer));
    });
  }

  function update(parameters) {
    const item = parameters.get("item");
    if (item !== null) {
      place.run("Reading the item", (signal) => send(`items/${encodeURIComponent(item)}`, { signal }), ({ text }) => {
        box.value = text;
        audit();
      });
      return;
    }
    const text = parameters.get("text");
    if (text !== null && text !== box.value) box.value = text;
    audit();
  }

  return {
    update,
    close() {
      soon.cancel();
      place.stop();
    },
  };
}

function summary({ base, adapted }) {
  const saved = base.length - adapted.length;
  if (saved === 0) return `${plural(base.length, "token")} with either vocabulary.`;
  const share = `${((100 * Math.abs(saved)) / base.length).toFixed(1)}%`;
  return saved > 0
    ? `${count(base.length)} tokens become ${count(adapted.length)}: ${share} fewer.`
    : `${count(base.length)} tokens become ${count(adapted.length)}: ${share} more.`;
}

function drawAudit(text, { base, adapted, terms }) {
  const spans = terms.map(({ start, end }) => [start, end]);
  const broken = inside(base, spans);
  const whole = inside(adapted, spans);
  return [
    h(
      "div",
      { class: "columns" },
      side("Base", "base", text, base, broken, "broken"),
      side("Adapted", "adapted", text, adapted, whole, "whole"),
    ),
    h(
      "p",
      { class: "legend" },
      h("span", { class: "piece broken" }, "term"), " broken by the base ",
      h("span", { class: "piece whole" }, "term"), " with new tokens",
    ),
    termTable(text, base, adapted, terms),
  ];
}

function side(title, name, text, tokens, special, kind) {
  return h(
    "section",
    { class: "column plain", "aria-labelledby": `${name}-title` },
    h("h2", { id: `${name}-title` }, title, h("span", { class: "amount" }, plural(tokens.length, "token"))),
    h("p", { class: "pieces" }, pieces(text, tokens, special, kind)),
  );
}

/** Each token as a box; what no token covers is shown as it is. */
function pieces(text, tokens, special, kind) {
  const nodes = [];
  let at = 0;
  tokens.forEach((token, number) => {
    const { start, end } = token;
    if (start > at) nodes.push(text.slice(at, start));
    const part = text.slice(Math.max(start, at), end);
    const shown = part === "" ? "·" : part; // tokens of bytes share a character, which the first shows
    const style = special.has(number) ? kind : number % 2 ? "odd" : "even";
    nodes.push(h("span", { class: `piece ${style}`, title: token.token }, visible(shown)));
    at = Math.max(at, end);
  });
  nodes.push(text.slice(at, text.length));
  return nodes;
}

/** A token of line breaks or tabs alone would be invisible. */
function visible(part) {
  return part.replaceAll("\n", "↵\n").replaceAll("\t", "⇥\t");
}

/** The numbers of the tokens that lie in a span or cover it. Both lists are in the text's order. */
function inside(tokens, spans) {
  const numbers = new Set();
  const ordered = spans.toSorted((a, b) => a[0] - b[0]);
  let first = 0;
  tokens.forEach(({ start, end }, number) => {
    while (first < ordered.length && ordered[first][1] <= start) first += 1;
    const span = ordered[first];
    if (span && start < span[1] && span[0] < end) numbers.add(number);
  });
  return numbers;
}

function termTable(text, base, adapted, terms) {
  if (terms.length === 0) return h("p", { class: "empty" }, "No new token occurs in this text.");
  const rows = new Map();
  for (const term of terms) {
    const name = term.text.trim() || term.text;
    const row = rows.get(name) ?? { name, times: 0, before: within(text, base, term), after: within(text, adapted, term) };
    row.times += 1;
    rows.set(name, row);
  }
  const ordered = [...rows.values()].sort((a, b) => gain(b) - gain(a));
  return h(
    "div",
    {},
    h("h2", { id: "terms-title" }, "New tokens in this text"),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": "terms-title" },
      h(
        "table",
        {},
        h("thead", {}, h("tr", {}, ["Term", "Base", "Adapted"].map((name) => h("th", { scope: "col" }, name)), h("th", { scope: "col", class: "n" }, "Times"))),
        h(
          "tbody",
          {},
          ordered.slice(0, LISTED).map(({ name, before, after, times }) =>
            h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, chain(before, "broken")), h("td", {}, chain(after, "whole")), h("td", { class: "n" }, count(times)))),
        ),
      ),
    ),
    ordered.length > LISTED && h("p", { class: "note" }, `and ${plural(ordered.length - LISTED, "more term")}`),
  );
}

function gain({ before, after, times }) {
  return times * (before.length - after.length);
}

function within(text, tokens, { start, end }) {
  return tokens
    .filter((token) => token.start < end && start < token.end)
    .map((token) => text.slice(token.start, token.end).trim() || token.token.trim() || "␣");
}

function chain(parts, kind) {
  return h("span", { class: "chain" }, parts.map((part) => h("span", { class: `piece ${kind}` }, part)), " ");
}
