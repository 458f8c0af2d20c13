// Elements are built here and nowhere else. Strings become text nodes: no text is ever read as HTML.

/**
 * Create an element: `h("a", { href: "#/search", onclick: open }, "Search")`.
 * An attribute that is null, undefined or false is left out; a child that is null or false too.
 */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "value" || key === "checked") element[key] = value;
    else element.setAttribute(key, value === true ? "" : String(value));
  }
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** Put these children, and nothing else, into an element. */
export function fill(element, ...children) {
  element.replaceChildren();
  append(element, children);
  return element;
}

/** Text for screen readers only. */
export function spoken(...children) {
  return h("span", { class: "spoken" }, ...children);
}

/** Call a function once the calls have paused for `milliseconds`; `cancel` drops a waiting call. */
export function debounce(milliseconds, call) {
  let timer = 0;
  const later = (...values) => {
    clearTimeout(timer);
    timer = setTimeout(call, milliseconds, ...values);
  };
  later.cancel = () => clearTimeout(timer);
  return later;
}

const numbers = new Intl.NumberFormat("en");

/** 1268 → "1,268". */
export function count(value) {
  return numbers.format(value);
}

/** (2, "result") → "2 results". */
export function plural(value, noun) {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}
