// The items a visitor has chosen, in order: the history that recommendations continue. It is kept in
// this tab, and in the address of the view that shows it.
const KEY = "idiolect.history";
const MOST = 50;

export const basket = {
  get() {
    try {
      const ids = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
      return Array.isArray(ids) ? ids.filter((id) => typeof id === "string") : [];
    } catch {
      return [];
    }
  },
  set(ids) {
    sessionStorage.setItem(KEY, JSON.stringify(ids.slice(-MOST)));
  },
  /** Add an item at the end; it moves there if it was in the history. */
  add(id) {
    this.set([...this.get().filter((other) => other !== id), id]);
  },
  has(id) {
    return this.get().includes(id);
  },
};
