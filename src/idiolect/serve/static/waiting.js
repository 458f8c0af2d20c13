// Work in progress: only the latest of several requests counts; a slow or failed request is reported.
import { h, fill } from "./dom.js";
import { isAborted, Problem } from "./api.js";

const SOON = 700; // milliseconds before waiting is mentioned
const LONG = 6_000;
const AGAIN = 3; // attempts that a busy server gets by itself

/** A place on the page that is filled by requests, of which each overtakes the one before. */
export class Place {
  /** `region` is filled with results or problems; `status` is a line with role="status". */
  constructor(region, status) {
    this.region = region;
    this.status = status;
    this.controller = null;
    this.timers = [];
  }

  /** Stop what is in progress. */
  stop() {
    this.controller?.abort();
    this.controller = null;
    this.timers.forEach(clearTimeout);
    this.timers = [];
    this.region.removeAttribute("aria-busy");
  }

  /** Empty the place. */
  clear() {
    this.stop();
    fill(this.region);
    this.say("");
  }

  say(words) {
    if (this.status.textContent !== words) this.status.textContent = words;
  }

  /**
   * Run `work(signal)`, then `show(result)`. `doing` says what is being done, if that takes long.
   * What was shown before stays until then.
   */
  async run(doing, work, show, attempt = 1) {
    this.stop();
    const controller = (this.controller = new AbortController());
    this.region.setAttribute("aria-busy", "true");
    this.timers = [
      setTimeout(() => this.say(`${doing}…`), SOON),
      setTimeout(() => this.say(`${doing}; the server is slow…`), LONG),
    ];
    try {
      const result = await work(controller.signal);
      if (controller !== this.controller) return;
      this.stop();
      show(result);
    } catch (error) {
      if (controller !== this.controller) return;
      this.stop();
      if (isAborted(error)) return;
      if (!(error instanceof Problem)) throw error;
      this.fail(error, () => this.run(doing, work, show), () =>
        this.run(doing, work, show, attempt + 1), attempt);
    }
  }

  fail(problem, retry, again, attempt) {
    const waits = problem.retryAfter !== null && attempt < AGAIN;
    const seconds = waits ? Math.min(Math.max(problem.retryAfter, 1), 60) : 0;
    if (waits) this.timers = [setTimeout(again, seconds * 1000)];
    this.say("");
    fill(this.region, problemBox(problem, retry, waits && `Trying again in ${seconds} s.`));
  }
}

/** A problem in words, with a way to try again. */
export function problemBox(problem, retry, more) {
  const lasting = problem.kind === "missing" || problem.kind === "forbidden" || problem.kind === "refused";
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", {}, h("strong", {}, problem.message)),
    problem.hint && h("p", {}, problem.hint),
    more && h("p", {}, more),
    retry && !lasting && h("button", { type: "button", class: "plain", onclick: retry }, "Try again"),
  );
}

/** A line for people and screen readers that says what happened. */
export function statusLine() {
  return h("p", { class: "status", role: "status" });
}
