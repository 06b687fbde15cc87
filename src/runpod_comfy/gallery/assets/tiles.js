// Nodes: made by one small function, and for tiles kept and used again, so that there are as many as one sees.

const ICONS = {
  star: "M8 1.8l1.9 4 4.3.5-3.2 3 .9 4.3L8 11.4l-3.9 2.2.9-4.3-3.2-3 4.3-.5z",
  close: "M3.5 3.5l9 9m0-9l-9 9",
  left: "M10 3L5 8l5 5", right: "M6 3l5 5-5 5",
  swap: "M2.5 5.5h10l-3-3m4 8h-10l3 3",
  compare: "M2 3h5v10H2zM9 3h5v10H9z",
  grid: "M2.5 2.5h4v4h-4zm7 0h4v4h-4zm-7 7h4v4h-4zm7 0h4v4h-4z",
  axes: "M3 2v11h11M6 9l2.5-3 2 2L14 4",
  menu: "M2 4h12M4.5 8h7M6.5 12h3",
  sun: "M8 5a3 3 0 100 6 3 3 0 000-6zM8 1v1.5M8 13.500V15M1 8h1.500M13.500 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1",
  export: "M8 10V2m-3 3l3-3 3 3M3 10v3.500h10V10",
  play: "M5 3l8 5-8 5z", reject: "M8 2a6 6 0 100 12A6 6 0 008 2zM4 4l8 8",
  up: "M4 10l4-4 4 4", down: "M4 6l4 4 4-4",
};

function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS("http://www.w3.org/2000/svg", "path");
  shape.setAttribute("d", ICONS[name]);
  svg.append(shape);
  return svg;
}

/** Make a node: `h("button.chip", {title: …, onclick: …}, "text", node)`. Text is text, whatever it says. */
function h(what, given = {}, ...children) {
  const [tag, ...classes] = what.split(".");
  const node = document.createElement(tag);
  node.className = classes.join(" ");
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined || value === null) continue;
    if (name.includes("-") || name === "role" || name === "for") node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const button = (title, name, onclick, more = {}) => h("button.icon", { type: "button", title, "aria-label": title.replace(/ \(.*\)$/, ""), onclick, ...more }, icon(name));

const toasts = h("div.toasts", { role: "status", "aria-live": "polite" });
let toastTimer = 0;
function toast(text) {
  // A window that is open lies over all that is not inside it.
  ([...document.querySelectorAll("dialog[open]")].pop() || document.body).append(toasts);
  toasts.textContent = text;
  toasts.classList.add("shown");
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => toasts.classList.remove("shown"), 2600);
}

/** Stars as a tile's corner shows them. */
const mark = (item) => { const stars = starsOf(item); return stars > 0 ? "★".repeat(stars) : stars < 0 ? "✕" : ""; };

/** A tile is two nodes; its caption and stars are drawn by CSS from attributes, which hold text and nothing else. */
class Tile {
  constructor() {
    this.image = h("img", { alt: "", decoding: "async", draggable: false });
    this.node = h("div.tile", { role: "option" }, this.image);
    this.node.tile = this;
    this.image.onload = () => this.node.classList.remove("loading");
    this.image.onerror = () => this.fallBack();
  }
  /** No thumbnail yet: the file itself; no file either: say so. */
  fallBack() {
    if (this.item && this.item.kind === "image" && this.source === this.item.thumb && !DATA.thumbs) this.load(path(this.item.file));
    else { this.node.classList.remove("loading"); this.node.classList.add("broken"); }
  }
  load(source) {
    this.source = source;
    if (source) this.image.src = source;
    else this.image.removeAttribute("src");
  }
  show(box) {
    const { item } = box;
    const { node } = this;
    if (this.item !== item) {
      this.item = item;
      const words = item.failure ? `${item.failure.nodeType ? `${item.failure.nodeType}: ` : ""}${item.failure.message || item.failure.code}` : "";
      node.className = `tile ${item.kind}${item.kind !== "image" ? "" : item.thumb ? " loading" : " broken"}`;
      node.id = `tile-${item.id}`;
      node.dataset.reason = words || (item.kind === "file" ? item.file.split(".").pop().toUpperCase() : "");
      this.load(item.kind === "image" ? item.thumb : null);
    }
    const text = box.caption || caption(item);
    if (node.dataset.caption !== text) {
      node.dataset.caption = text;
      node.title = item.failure ? node.dataset.reason : text;
      node.setAttribute("aria-label", `${item.failure ? `failed: ${node.dataset.reason}. ` : ""}${text}`);
    }
    const of = box.of || "";
    if ((node.dataset.of || "") !== of) node.dataset.of = of;
    const style = node.style;
    style.transform = `translate(${box.x}px, ${box.y}px)`;
    style.width = `${box.width}px`;
    style.height = `${box.height}px`;
    this.marks();
  }
  marks() {
    const { item, node } = this;
    const stars = mark(item);
    if (node.dataset.mark !== stars) node.dataset.mark = stars;
    node.classList.toggle("rejected", starsOf(item) < 0);
    const isCurrent = item.id === view.current;
    node.classList.toggle("current", isCurrent);
    node.setAttribute("aria-selected", isCurrent);
    node.classList.toggle("pinned", item.id === view.pinned);
  }
}

/** Tiles by what they show; one that is out of sight shows the next. */
class Pool {
  constructor(host) { this.host = host; this.used = new Map(); this.free = []; }
  show(boxes) {
    const wanted = new Map(boxes.map((box) => [box.item.id, box]));
    for (const [id, tile] of this.used) if (!wanted.has(id)) { this.used.delete(id); this.free.push(tile); }
    for (const [id, box] of wanted) {
      let tile = this.used.get(id);
      if (!tile) {
        tile = this.free.pop() || new Tile();
        if (!tile.node.isConnected) this.host.append(tile.node);
        this.used.set(id, tile);
      }
      tile.show(box);
    }
    // A few are kept for the next step; many would be nodes that nobody sees.
    while (this.free.length > 8) this.free.pop().node.remove();
    for (const tile of this.free) tile.node.style.transform = "translate(-9999px, 0)";
  }
  marks(item) { const tile = this.used.get(item.id); if (tile) tile.marks(); }
  allMarks() { for (const tile of this.used.values()) tile.marks(); }
  clear() { this.show([]); }
}
