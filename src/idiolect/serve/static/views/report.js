// The run's report, a page of its own, shown within this one. It is read with the key and drawn into
// a shadow tree, so that neither page's styles reach the other; nothing in it is executed.
import { open } from "../api.js";
import { fill, h } from "../dom.js";
import { Place, statusLine } from "../waiting.js";

export const missing = "This run has no report.";

const FORBIDDEN = "script, iframe, object, embed, link, meta, base, form";

export function show(main) {
  const status = statusLine();
  const region = h("div", { class: "report" });
  const place = new Place(region, status);
  const heading = h("h1", { class: "spoken" }, "Report of the run");
  fill(main, heading, status, region);
  return {
    update() {
      place.run("Reading the report", async (signal) => (await open("report", { signal })).text(), (page) => {
        place.say("");
        fill(region, draw(page));
        heading.remove(); // the report has its own
      });
    },
    close: () => place.stop(),
  };
}

function draw(page) {
  // The page's policy refuses style sheets and attributes as they are parsed. So they are taken out:
  // the sheets become one of the tree, and `clean` sets the attributes afterwards.
  const sheets = [];
  const text = page
    .replace(/<style[^>]*>([\s\S]*?)<\/style>/gi, (whole, rules) => (sheets.push(rules), ""))
    .replace(/\sstyle="/g, ' data-style="');
  const parsed = new DOMParser().parseFromString(text, "text/html");
  const styles = sheets.join("\n");
  for (const element of parsed.querySelectorAll(`style, ${FORBIDDEN}`)) element.remove();
  const host = h("div");
  const root = host.attachShadow({ mode: "open" });
  const sheet = new CSSStyleSheet();
  // The report's rules for the document become rules for its tree.
  sheet.replaceSync(`${styles.replaceAll(":root", ":host").replace(/(^|[\s,}])body(?=\s*[{,])/g, "$1.body")}
    :host { display: block } .body { padding: 0 !important; margin: 0 auto }`);
  root.adoptedStyleSheets = [sheet];
  const body = h("div", { class: "body" });
  for (const node of [...parsed.body.childNodes]) body.append(clean(document.adoptNode(node)));
  for (const landmark of body.querySelectorAll("main")) landmark.replaceWith(...landmark.childNodes);
  body.addEventListener("click", (event) => followWithin(event, root));
  root.append(body);
  return host;
}

/** Leave out handlers, and set styles by the way that the page's policy allows. */
function clean(node) {
  if (node.nodeType !== Node.ELEMENT_NODE) return node;
  for (const element of [node, ...node.querySelectorAll("*")]) {
    for (const { name, value } of [...element.attributes]) {
      if (name.startsWith("on")) element.removeAttribute(name);
      else if (name === "data-style") element.style.cssText = value;
    }
  }
  return node;
}

/** Links within the report scroll: the part of the address after "#" is this page's own. */
function followWithin(event, root) {
  const target = event.target.closest('a[href^="#"]')?.getAttribute("href").slice(1);
  if (!target) return;
  event.preventDefault();
  const element = root.getElementById(target);
  element?.setAttribute("tabindex", "-1");
  element?.focus({ preventScroll: true });
  element?.scrollIntoView({ block: "start" });
}
