// A question, an answer, and its sources: each citation leads to the passage in its document.
import { send, stream } from "../api.js";
import { fill, h, plural } from "../dom.js";
import { address, go } from "../place.js";
import { marked, Text } from "../text.js";
import { Place, statusLine } from "../waiting.js";

export const missing = "This run cannot answer questions.";

const READ = 8; // passages

export function show(main) {
  const status = statusLine();
  const region = h("div", { class: "results" });
  const place = new Place(region, status);
  const button = h("button", { type: "submit", class: "main" }, "Answer");
  const box = h("input", {
    type: "text",
    id: "question",
    "data-box": true,
    placeholder: "Ask a question",
    autocomplete: "off",
    enterkeyhint: "go",
  });
  fill(
    main,
    h("h1", {}, "Answers with sources"),
    h("p", { class: "lead" }, "A question is answered from the items; each statement names the passage it rests on."),
    h("form", { class: "ask", onsubmit: submit }, h("label", { for: "question", class: "spoken" }, "Question"), box, button),
    status,
    region,
  );

  let asked = null;

  function submit(event) {
    event.preventDefault();
    const question = box.value.trim();
    if (!question) {
      box.focus();
      return;
    }
    if (question === asked) ask(question);
    else go("answer", { q: question });
  }

  function ask(question) {
    asked = question;
    place.run(
      "Reading the passages and writing an answer",
      (signal) => write(question, signal),
      (answer) => {
        place.say(answer.abstained ? "No answer was found." : `Answered from ${plural(answer.citations.length, "source")}.`);
        fill(region, drawAnswer(answer));
      },
    );
    const button = h("button", { type: "button", class: "plain", onclick: cancel }, "Cancel");
    fill(region, h("p", { class: "large", "aria-hidden": "true" }), h("p", {}, button));
  }

  /** Show the sentences as they come; return the whole answer. */
  async function write(question, signal) {
    let answer = null;
    for await (const event of stream("answer", { signal, body: { question, top_k: READ, stream: true } })) {
      if ("piece" in event) region.querySelector(".large").append(event.piece);
      else answer = event;
    }
    return answer;
  }

  function cancel() {
    asked = null;
    place.clear();
    box.focus();
  }

  function update(parameters) {
    const question = parameters.get("q") ?? "";
    if (box.value !== question) box.value = question;
    if (question.trim()) ask(question);
    else place.clear();
  }

  if (matchMedia("(hover: hover)").matches) box.focus({ preventScroll: true });
  return { update, close: () => place.stop() };
}

function drawAnswer({ answer, citations, abstained, passages }) {
  const sources = citations; // "[1]" in the answer is the first
  const cards = sources.map((source, number) => new Source(source, number + 1));
  const lead = (number) => cards[number - 1]?.reveal();
  return h(
    "div",
    { class: "two even" },
    h(
      "section",
      { class: "answer", "aria-labelledby": "answer-title" },
      h("h2", { id: "answer-title", tabindex: "-1" }, abstained ? "No answer" : "Answer"),
      answer && h("p", { class: abstained ? "note" : "large" }, withMarkers(answer, sources.length, lead)),
      sources.length > 0 && h("p", { class: "cited" }, h("span", { class: "name" }, "Sources "), sources.map((_, index) => marker(index + 1, lead))),
      passages.length > 0 && passagesRead(passages, sources),
    ),
    sources.length > 0 &&
      h("section", { "aria-labelledby": "sources-title" }, h("h2", { id: "sources-title" }, "Sources"), cards.map((card) => card.element)),
  );
}

/** The answer with its "[2]" as buttons. */
function withMarkers(answer, sources, lead) {
  return answer.split(/(\[\d+\])/).map((part) => {
    const number = Number(/^\[(\d+)\]$/.exec(part)?.[1]);
    return number >= 1 && number <= sources ? marker(number, lead) : part;
  });
}

function marker(number, lead) {
  return h("button", { type: "button", class: "marker", "aria-label": `Go to source ${number}`, onclick: () => lead(number) }, String(number));
}

/** A cited document, with the cited passage marked. */
class Source {
  constructor(citation, number) {
    this.citation = citation;
    const id = `source-${number}`;
    const status = statusLine();
    this.document = h("div", { class: "document text", tabindex: "0", role: "region", "aria-label": `Source ${number}: ${citation.id}` });
    this.element = h(
      "article",
      { class: "source", "aria-labelledby": id },
      h("h3", { id }, h("span", { class: "number" }, String(number)), " ", h("a", { href: address("item", { id: citation.id }) }, citation.id)),
      status,
      this.document,
    );
    fill(this.document, h("mark", {}, citation.text));
    const place = new Place(h("div"), status);
    place.run("Reading the document", (signal) => send(`items/${encodeURIComponent(citation.id)}`, { signal }), (item) => this.draw(item.text, place));
  }

  draw(content, place) {
    const { start, end, text: cited } = this.citation;
    const text = new Text(content);
    if (text.slice(start, end) !== cited) {
      place.say("The document has changed since the answer was written; this is the passage that was read.");
      return;
    }
    fill(this.document, marked(text, [[start, end]]));
    this.center();
  }

  /** Scroll the document, and nothing else, to the passage. */
  center() {
    const mark = this.document.querySelector("mark");
    if (mark) this.document.scrollTop = mark.offsetTop - this.document.clientHeight / 3;
  }

  /** Go to the passage: the page to the source, the source to the passage, and the focus there. */
  reveal() {
    this.center();
    this.element.scrollIntoView({ block: "nearest" });
    this.document.focus({ preventScroll: true });
  }
}

function passagesRead(passages, sources) {
  const cited = (passage) => sources.some(({ id, start, end }) => id === passage.id && start < passage.end && passage.start < end);
  return h(
    "details",
    {},
    h("summary", {}, `${plural(passages.length, "passage")} read`),
    h(
      "ol",
      { class: "passages" },
      passages.map((passage) =>
        h(
          "li",
          {},
          h("a", { href: address("item", { id: passage.id }) }, passage.id),
          cited(passage) && h("span", { class: "badge" }, "cited"),
          h("p", { class: "snippet" }, passage.text),
        )),
    ),
  );
}
