// Where the page is, kept in the part of the address after "#": it can be shared and Back works, and
// it is not sent to the server, so no search lands in a log.

/** The current view and its parameters: "#/search?q=lamp" → ["search", URLSearchParams]. */
export function current() {
  const [, view = "", query = ""] = /^#\/([^?]*)\??(.*)$/.exec(location.hash) ?? [];
  return [view || "search", new URLSearchParams(query)];
}

/** The address of a view; parameters that are empty or null are left out. */
export function address(view, parameters = {}) {
  const kept = Object.entries(parameters).filter(([, value]) => value !== null && value !== "");
  const query = new URLSearchParams(kept).toString();
  return `#/${view}${query ? `?${query}` : ""}`;
}

/** Go to a view: a step that Back undoes. */
export function go(view, parameters) {
  const target = address(view, parameters);
  if (target !== location.hash) location.hash = target;
}

/** Note what changed within a view without a step for Back, such as each key typed. */
export function note(view, parameters) {
  history.replaceState(history.state, "", address(view, parameters));
}
