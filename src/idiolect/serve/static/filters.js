// Filters on the items' metadata: controls for the fields of /info, and the filter in the index's own
// syntax, {"package": {"$in": ["numpy"]}, "price": {"$lt": 50}}, as it stands in the address.
import { fill, h } from "./dom.js";

const FEW = 12; // values that are offered as boxes to tick; more are typed, with suggestions

let serial = 0;

/** The panel of filters. `changed(filter)` is called with the new filter, null if there is none. */
export class Filters {
  constructor(fields, changed) {
    this.fields = Object.entries(fields ?? {}).filter(([, values]) => values.length > 0);
    this.changed = changed;
    this.filter = {};
    this.panel = h("section", { class: "filters", id: "filters", "aria-label": "Filters", hidden: true });
    this.chips = h("ul", { class: "chips", "aria-label": "Active filters" });
    this.button = h(
      "button",
      { type: "button", class: "plain", "aria-expanded": "false", "aria-controls": "filters", onclick: () => this.toggle() },
      "Filters",
    );
    this.button.hidden = this.fields.length === 0;
    this.chosen = null; // whether the panel is open, once somebody has clicked
  }

  toggle() {
    this.chosen = this.panel.hidden;
    this.open(this.chosen);
  }

  /** Open or close the panel, unless somebody has chosen. */
  open(wanted) {
    const open = this.fields.length > 0 && (this.chosen ?? wanted);
    this.panel.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
  }

  /** Show this filter, an object or null. */
  set(filter) {
    if (JSON.stringify(filter ?? {}) === JSON.stringify(this.filter) && this.panel.childElementCount) return;
    this.filter = structuredClone(filter ?? {});
    fill(this.panel, this.fields.map(([name, values]) => this.control(name, values)));
    this.describe();
  }

  /** Set one field's condition, null for none, and say so. */
  put(name, condition, drawn = true) {
    if (condition === null) delete this.filter[name];
    else this.filter[name] = condition;
    const filter = Object.keys(this.filter).length ? structuredClone(this.filter) : null;
    if (!drawn) fill(this.panel, this.fields.map(([field, values]) => this.control(field, values)));
    this.describe();
    this.changed(filter);
  }

  drop(name, left) {
    this.put(name, left, false);
    (this.chips.querySelector("button") ?? this.button).focus();
  }

  control(name, values) {
    if (values.every((value) => typeof value === "number")) return this.range(name, values);
    if (values.length <= FEW) return this.boxes(name, values);
    return this.typed(name, values);
  }

  boxes(name, values) {
    const chosen = () => this.filter[name]?.$in ?? [];
    const toggle = (value, on) => {
      const left = chosen().filter((other) => other !== value);
      const now = on ? [...left, value] : left;
      this.put(name, now.length ? { $in: now } : null);
    };
    return h(
      "fieldset",
      {},
      h("legend", {}, name),
      values.map((value) =>
        h(
          "label",
          { class: "tick" },
          h("input", {
            type: "checkbox",
            checked: chosen().includes(value),
            onchange: (event) => toggle(value, event.target.checked),
          }),
          h("span", {}, words(value)),
        )),
    );
  }

  typed(name, values) {
    const id = `filter-${(serial += 1)}`;
    const add = (event) => {
      const value = event.target.value.trim();
      if (!value) return;
      event.target.value = "";
      const others = (this.filter[name]?.$in ?? []).filter((other) => other !== value);
      this.put(name, { $in: [...others, value] });
    };
    return h(
      "fieldset",
      {},
      h("legend", {}, h("label", { for: id }, name)),
      h("input", {
        id,
        list: `${id}-values`,
        placeholder: `such as ${words(values[0])}`,
        autocomplete: "off",
        onchange: add,
      }),
      h("datalist", { id: `${id}-values` }, values.map((value) => h("option", { value: words(value) }))),
    );
  }

  range(name, values) {
    const bound = (operator, label, placeholder) =>
      h(
        "label",
        { class: "bound" },
        label,
        h("input", {
          type: "number",
          step: "any",
          value: this.filter[name]?.[operator] ?? "",
          placeholder: String(placeholder),
          "aria-label": `${name} ${label}`,
          oninput: (event) => {
            const condition = { ...this.filter[name] };
            if (event.target.value === "") delete condition[operator];
            else condition[operator] = event.target.valueAsNumber;
            this.put(name, Object.keys(condition).length ? condition : null);
          },
        }),
      );
    return h(
      "fieldset",
      {},
      h("legend", {}, name),
      h("div", { class: "row" }, bound("$gte", "from", Math.min(...values)), bound("$lte", "to", Math.max(...values))),
    );
  }

  describe() {
    const parts = Object.entries(this.filter).flatMap(([name, condition]) => this.parts(name, condition));
    fill(
      this.chips,
      parts.map(([label, left, name]) =>
        h(
          "li",
          {},
          h(
            "button",
            { type: "button", class: "chip", "aria-label": `Remove the filter ${label}`, onclick: () => this.drop(name, left) },
            label,
            h("span", { "aria-hidden": "true" }, "×"),
          ),
        )),
    );
    this.chips.hidden = parts.length === 0;
    this.button.textContent = parts.length ? `Filters (${parts.length})` : "Filters";
  }

  /** The parts of a condition that can be removed by themselves: [label, what is left, field]. */
  parts(name, condition) {
    if (Array.isArray(condition?.$in)) {
      return condition.$in.map((value) => {
        const left = condition.$in.filter((other) => other !== value);
        return [`${name}: ${words(value)}`, left.length ? { $in: left } : null, name];
      });
    }
    const signs = { $gte: "≥", $lte: "≤", $gt: ">", $lt: "<", $eq: "=" };
    const entries = typeof condition === "object" && condition !== null ? Object.entries(condition) : [];
    if (entries.length && entries.every(([operator]) => operator in signs)) {
      return entries.map(([operator, value]) => {
        const left = Object.fromEntries(entries.filter(([other]) => other !== operator));
        return [`${name} ${signs[operator]} ${words(value)}`, Object.keys(left).length ? left : null, name];
      });
    }
    return [[`${name}: ${JSON.stringify(condition)}`, null, name]];
  }
}

function words(value) {
  if (value === true) return "yes";
  if (value === false) return "no";
  return String(value);
}

/** The filter of an address, null if there is none or it cannot be read. */
export function readFilter(text) {
  try {
    const value = JSON.parse(text ?? "null");
    return value !== null && typeof value === "object" && !Array.isArray(value) ? value : null;
  } catch {
    return null;
  }
}
