// The page: its bar, what the view is, and what keys do.

const view = {
  mode: "grid", query: "", state: "all", facets: new Map(), opened: new Set(), sort: "", descending: false, group: "",
  size: 184, x: "", y: "", page: "", pageCode: EMPTY, cell: "first", sampleAt: 0, hidden: new Map(), current: null, pinned: null,
};
const SETTINGS_AS = "runpod-comfy gallery settings";
const settings = { theme: "", size: 184, detailed: true, compare: "two", advance: false };
try { Object.assign(settings, JSON.parse(localStorage.getItem(SETTINGS_AS) || "{}")); } catch (_) { /* the usual ones */ }
view.size = Math.min(420, Math.max(96, Number(settings.size) || 184));
function keepSettings() {
  try { localStorage.setItem(SETTINGS_AS, JSON.stringify(settings)); } catch (_) { /* as usual next time */ }
}

let result = { found: [], counts: new Map(), unknown: [] };
const active = () => (view.mode === "xy" ? xy : grid);
const visible = () => ({ found: view.mode === "xy" ? xy.layout.found : result.found });
const currentItem = () => (view.current && itemsById.get(view.current)) || null;

// What the page is made of.
const search = h("input.search", { type: "search", id: "search", placeholder: "Search: fox  cfg>6  seed:123  -blurry", "aria-label": "Search", spellcheck: false, autocomplete: "off" });
const count = h("output.count", { role: "status", "aria-live": "polite" });
const liveChip = h("button.live", { type: "button", hidden: true, disabled: true });
const groupSelect = h("select", { id: "group", "aria-label": "Group by" });
const sortSelect = h("select", { id: "sort", "aria-label": "Sort by" });
const direction = button("Ascending or descending", "down", () => { view.descending = !view.descending; refresh(); }, { id: "direction" });
const size = h("input.size", { type: "range", id: "size", min: 96, max: 420, step: 4, value: view.size, "aria-label": "Size of the tiles", title: "Size" });
const modeButton = (mode, label, name, key) => h("button", { type: "button", id: `view-${mode}`, title: `${label} (${key})`, onclick: () => setView(mode) }, icon(name), label);
const modes = h("span.segments", { role: "group", "aria-label": "View" }, modeButton("grid", "Grid", "grid", "g"), modeButton("xy", "XY", "axes", "x"));
const exportButton = h("button.plain", { type: "button", id: "export", "aria-haspopup": "menu", onclick: openExport }, icon("export"), "Export");
const canvas = h("div.canvas");
const across = h("div.across");
const down = h("div.down");
const sticky = h("div.group-now", { hidden: true });
const empty = h("p.empty", { hidden: true });
const scroller = h("main.scroller", { tabIndex: 0, role: "listbox", "aria-label": "Images" }, sticky, canvas);
const axes = h("div.axes-host");
const pool = new Pool(canvas);
const heads = [];

document.title = `${DATA.title} – gallery`;
document.body.append(
  h("header.bar.top", {},
    button("Filters", "menu", () => document.body.classList.toggle("filters-open"), { className: "icon filters-toggle" }),
    h("h1", { textContent: DATA.title }), count, liveChip, h("span.grow"), search, h("span.grow"), modes,
    h("label.field", { title: "Group" }, h("span", {}, "Group"), groupSelect),
    h("label.field", { title: "Sort" }, h("span", {}, "Sort"), sortSelect), direction, size, exportButton,
    button("Light or dark", "sun", toggleTheme, { id: "theme" }),
    h("button.icon", { type: "button", id: "help", title: "Keys (?)", "aria-label": "Keys", textContent: "?", onclick: openHelp })),
  h("div.below", {}, facets, h("div.content", {}, axes, scroller, empty)), toasts);

groupSelect.onchange = () => { view.group = groupSelect.value; scroller.scrollTop = 0; refresh(); };
sortSelect.onchange = () => { view.sort = sortSelect.value; refresh(); };
size.oninput = () => { view.size = settings.size = Number(size.value); keepSettings(); keepingPlace(refreshLayout); };
search.oninput = () => { view.query = search.value; scroller.scrollTop = 0; refresh(); };

function fillSelects() {
  const names = varying().map((column) => column.name);
  const fill = (select, options) => {
    const signature = options.join("\n");
    if (select.dataset.signature === signature) return;
    select.dataset.signature = signature;
    select.replaceChildren(...options.map((name) => h("option", { value: name, textContent: name || (select === sortSelect ? "row" : "none") })));
  };
  fill(groupSelect, ["", ...names.filter((name) => columns.get(name).values.length <= Math.max(60, items.length / 3))]);
  fill(sortSelect, ["", ...names, ...Object.keys(SORTS).filter((name) => !columns.has(name))]);
  groupSelect.value = view.group;
  sortSelect.value = view.sort;
}

/** Everything anew: after a change of filter, order, view or data. */
function refresh() {
  fillSelects();
  result = select(view);
  drawFacets(result.counts);
  refreshLayout();
  const shown = result.found.length.toLocaleString("en");
  const all = items.length.toLocaleString("en");
  count.textContent = result.unknown.length ? `no variable ${result.unknown.join(", ")}` : shown === all ? `${all}` : `${shown} of ${all}`;
  count.classList.toggle("warns", result.unknown.length > 0);
  for (const mode of ["grid", "xy"]) modes.querySelector(`#view-${mode}`).setAttribute("aria-pressed", view.mode === mode);
  direction.classList.toggle("descending", view.descending);
  direction.setAttribute("aria-pressed", view.descending);
  hashSoon();
}

function refreshLayout() {
  document.body.dataset.mode = view.mode;
  const layout = active();
  if (view.mode === "xy") {
    guessAxes();
    xy.measure(result.found, scroller.clientWidth);
    const focused = document.activeElement && axes.contains(document.activeElement) ? document.activeElement.id : null;
    axes.replaceChildren(axisBar());
    if (focused) axes.querySelector(`#${CSS.escape(focused)}`)?.focus();
    if (!across.isConnected) canvas.prepend(across, down);
    canvas.style.width = `${xy.layout.width}px`;
  } else {
    axes.replaceChildren();
    across.remove();
    down.remove();
    grid.measure(result.found, scroller.clientWidth);
    canvas.style.width = "";
  }
  canvas.style.height = `${layout.layout.height}px`;
  empty.hidden = result.found.length > 0;
  empty.textContent = items.length ? "Nothing matches. Clear the search or a filter." : DATA.live ? "The first picture is on its way." : "There is no picture here yet.";
  document.body.classList.toggle("captioned", view.mode === "grid" && grid.layout.captioned > 0);
  render();
}

let headsFor = "";
/** Put tiles where one looks; called for each frame that scrolls. */
function render() {
  const { scrollTop: top, scrollLeft: left, clientHeight: height, clientWidth: width } = scroller;
  const layout = active();
  const margin = Math.min(400, 1.5 * (layout.layout.tileHeight || layout.layout.cellHeight));
  const boxes = layout.boxes(top - margin, top + height + margin, left - 200, left + width + 200);
  pool.show(boxes);
  if (view.mode === "xy") drawAxes(top, left, height, width);
  else drawGroups(top, height, margin);
  const at = currentItem() && pool.used.has(view.current) ? `tile-${view.current}` : "";
  if (at) scroller.setAttribute("aria-activedescendant", at);
  else scroller.removeAttribute("aria-activedescendant");
}

function drawAxes(top, left, height, width) {
  const { xs, ys, cellWidth, cellHeight } = xy.layout;
  const key = [view.x, view.y, xs, ys, cellWidth, cellHeight, xy.range(left - LABELS, left + width, cellWidth, xs.length), xy.range(top - TOP, top + height, cellHeight, ys.length)].join("|");
  sticky.hidden = true;
  while (heads.length) heads.pop().remove();
  if (key === headsFor) return;
  headsFor = key;
  const labels = xy.heads(top - 200, top + height + 200, left - 200, left + width + 200);
  const corner = h("span.corner", { textContent: [view.y && `${view.y} ↓`, view.x && `${view.x} →`].filter(Boolean).join("   ") });
  across.replaceChildren(corner, ...labels.across);
  down.replaceChildren(...labels.down);
}

function drawGroups(top, height, margin) {
  headsFor = "";
  const sections = grid.heads(top - margin, top + height + margin);
  while (heads.length > sections.length) heads.pop().remove();
  sections.forEach((section, number) => {
    if (!heads[number]) { heads[number] = h("h3.group"); canvas.append(heads[number]); }
    const head = heads[number];
    head.style.transform = `translateY(${section.top}px)`;
    groupText(head, section);
  });
  const now = sections.length ? grid.layout.sections[grid.sectionAt(top)] : null;
  sticky.hidden = !now || top <= now.top;
  if (now) groupText(sticky, now);
}

function groupText(node, section) {
  const text = `${section.name}  ${section.label}`;
  if (node.dataset.text === text && node.dataset.count === String(section.count)) return;
  node.dataset.text = text;
  node.dataset.count = section.count;
  node.textContent = section.label;
  node.dataset.name = section.name;
}

/** Change the layout and keep in sight what is in the middle; whoever is at the top stays there. */
function keepingPlace(change) {
  if (scroller.scrollTop === 0) { change(); return; }
  const layout = active();
  const middle = scroller.scrollTop + scroller.clientHeight / 2;
  const [box] = layout.boxes(middle - 1, middle + 1, 0, 1e9);
  change();
  const place = box && layout.place(box.item);
  if (place) { scroller.scrollTop = (place.top + place.bottom) / 2 - scroller.clientHeight / 2; render(); }
}

function moveTo(item) {
  if (!item) return;
  view.current = item.id;
  const place = active().place(item);
  if (place) {
    if (place.top < scroller.scrollTop + 4) scroller.scrollTop = place.top - 4;
    else if (place.bottom > scroller.scrollTop + scroller.clientHeight - 4) scroller.scrollTop = place.bottom - scroller.clientHeight + GAP + 4;
    if (view.mode === "xy") {
      if (place.left < scroller.scrollLeft) scroller.scrollLeft = place.left;
      else if (place.right > scroller.scrollLeft + scroller.clientWidth) scroller.scrollLeft = place.right - scroller.clientWidth + GAP;
    }
  }
  render();
  pool.allMarks();
  hashSoon();
}

/** A star was given or taken: what shows it changes, and nothing moves away under the pointer. */
function choiceChanged(item) {
  pool.marks(item);
  drawStates();
  if (viewer && viewer.item === item) viewItem(item);
  if (comparing) drawCompare();
}

function rate(item, stars) {
  if (!item || item.failure) return;
  choose(item, stars);
  if (!settings.advance || !stars) return;
  const shown = visible().found;
  const next = shown[shown.indexOf(item) + 1];
  if (!next) return;
  if (viewer) viewItem(next);
  else moveTo(next);
}

function setView(mode) {
  if (view.mode === mode) return;
  view.mode = mode;
  scroller.scrollTop = 0;
  scroller.scrollLeft = 0;
  refresh();
  moveTo(currentItem());
  scroller.focus({ preventScroll: true });   // else Enter and space would press the button again
}

function toggleTheme() {
  const isDark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  settings.theme = isDark ? "light" : "dark";
  document.documentElement.dataset.theme = settings.theme;
  keepSettings();
}
if (settings.theme === "light" || settings.theme === "dark") document.documentElement.dataset.theme = settings.theme;

// Windows over the page.

function openDialog(className, title, ...children) {
  const dialog = h(`dialog.card.${className}`, { "aria-label": title });
  dialog.append(h("header", {}, h("h2", { textContent: title }), button("Close (Esc)", "close", () => dialog.close())), ...children);
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

function openExport() {
  const chosen = chosenItems();
  const starred = chosen.filter((item) => starsOf(item) > 0).length;
  const file = h("input", { type: "file", id: "import-file", accept: ".json,application/json", "aria-label": "A selection to add" });
  file.onchange = () => { if (file.files[0]) { dialog.close(); importSelection(file.files[0]); } };
  const action = (id, label, hint, onclick) => h("button.action", { type: "button", id, onclick, disabled: !chosen.length }, h("b", { textContent: label }), h("span", { textContent: hint }));
  const dialog = openDialog("export", "Your selection",
    h("p", { textContent: chosen.length ? `${starred} starred, ${chosen.length - starred} rejected. Files stay where they are.` : "Nothing is chosen yet. Give stars with 1 to 5, or space." }),
    action("export-json", "Save selection", "JSON for `runpod-comfy pick`", () => download(`${selectionName()}.json`, `${JSON.stringify(selection(), null, 1)}\n`, "application/json")),
    action("export-csv", "Save as table", "CSV with all parameters", () => download(`${selectionName()}.csv`, selectionTable(), "text/csv")),
    action("copy-ids", "Copy ids", "one a line, those with stars", () => copy(chosen.filter((item) => starsOf(item) > 0).map((item) => item.id).join("\n"), "Ids")),
    action("copy-pick", "Copy command", pickCommand(), () => copy(pickCommand(), "Command")),
    h("label.action", {}, h("b", {}, "Add a saved selection"), h("span", {}, "yours or somebody else's; the most stars count"), file));
}

const KEYS = [
  ["arrows, Home, End", "move"], ["Enter · Esc", "open · close"], ["/", "search"], ["g · x", "grid · XY"], ["t · [ ] · f", "swap axes · pages · flip book"],
  ["Space", "star"], ["1 – 5 · 0", "stars · none"], ["X (shift)", "reject"], ["u", "undo"], ["a", "go on after rating"],
  ["c", "compare: first A, then B"], ["m · b (hold) · s", "mode · blink · exchange"], ["+ − z", "zoom · actual size"], ["i", "details"], ["?", "this"],
];
function openHelp() {
  const list = h("dl.keys");
  for (const [keys, what] of KEYS) list.append(h("dt", { textContent: keys }), h("dd", { textContent: what }));
  openDialog("help", "Keys", list, h("p", { textContent: "Search: words, \"two words\", -without, cfg>6, sampler=euler, seed:123, stars>=3, is:failed. Ctrl-click compares. Stars are kept in this browser for this dataset." }));
}

// Keys and pointers.

function rateKey(key, item) {
  if (key === " ") rate(item, starsOf(item) > 0 ? 0 : 1);
  else if (/^[0-5]$/.test(key)) rate(item, Number(key));
  else if (key === "X" || key === "Delete") rate(item, starsOf(item) < 0 ? 0 : -1);
  else if (key === "u") undo();
  else if (key === "a") { settings.advance = !settings.advance; keepSettings(); toast(settings.advance ? "Goes on to the next after each rating" : "Stays after rating"); }
  else return false;
  return true;
}

function pageKey(key) {
  const item = currentItem();
  const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], PageUp: [0, -9], PageDown: [0, 9] };
  const { found } = visible();
  if (key in steps || key === "Home" || key === "End") scroller.focus({ preventScroll: true });
  if (key in steps) moveTo(item && found.includes(item) ? active().step(item, ...steps[key], scroller.clientHeight) : found[0]);
  else if (key === "Home") moveTo(found[0]);
  else if (key === "End") moveTo(found[found.length - 1]);
  else if (key === "Enter") openViewer(item || found[0]);
  else if (key === "/") { search.focus(); search.select(); }
  else if (key === "g") setView("grid");
  else if (key === "x") setView("xy");
  else if (key === "t" && view.mode === "xy") transpose();
  else if (key === "f" && view.mode === "xy") openViewer(item || found[0], { isBook: true });
  else if ((key === "[" || key === "]") && view.mode === "xy" && xy.layout.pages.length) {
    const { pages } = xy.layout;
    view.pageCode = pages[(pages.indexOf(view.pageCode) + (key === "]" ? 1 : -1) + pages.length) % pages.length];
    refresh();
  } else if ((key === "," || key === ".") && view.mode === "xy") { view.cell = "one"; view.sampleAt = (view.sampleAt + (key === "." ? 1 : -1) + xy.layout.most) % xy.layout.most; refresh(); }
  else if (key === "c") pin(item);
  else if (key === "i") openViewer(item || found[0]);
  else if (key === "Escape" && (view.pinned || document.body.classList.contains("filters-open"))) { view.pinned = null; document.body.classList.remove("filters-open"); pool.allMarks(); }
  else return rateKey(key, item);
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const { key, target } = event;
  const isField = target.matches("input, select, textarea");
  if (isField) {
    if (key === "Escape" && target === search) { if (search.value) { search.value = ""; search.oninput(); } scroller.focus(); }
    else if ((key === "Enter" || key === "ArrowDown") && target === search) { scroller.focus(); moveTo(visible().found[0]); event.preventDefault(); }
    if (target.type !== "range" || key.startsWith("Arrow")) return;
  }
  if ((key === " " || key === "Enter") && target.closest("button, a, summary")) return;   // theirs
  if (document.querySelector("dialog.card[open]")) return;
  let isDone;
  if (key === "?") { openHelp(); isDone = true; }
  else if (key === "Escape" && (comparing || viewer)) { closeCompare(); closeViewer(); isDone = true; }
  else if (comparing) isDone = compareKey(key);
  else if (viewer) {
    if (key === "c") { pin(viewer.item); isDone = true; }
    else if (key === "i") { toggleDetails(); isDone = true; }
    else isDone = viewerKey(key) || rateKey(key, viewer.item);
  } else isDone = pageKey(key);
  if (isDone) event.preventDefault();
});
// Whoever comes by Tab sees where the keys will act.
document.addEventListener("keyup", (event) => { if (event.key === "Tab" && document.activeElement === scroller && !currentItem()) moveTo(visible().found[0]); });
document.addEventListener("keyup", (event) => { if (comparing && event.key === "b") comparing.host.classList.remove("showing-b"); });

const tileOf = (event) => { const node = event.target.closest(".tile"); return node && node.tile.item; };
canvas.addEventListener("click", (event) => {
  const item = tileOf(event);
  if (!item) return;
  view.current = item.id;
  pool.allMarks();
  if (event.ctrlKey || event.metaKey || event.shiftKey) pin(item);
  else openViewer(item);
});

let asked = false;
scroller.addEventListener("scroll", () => {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => { asked = false; render(); });
}, { passive: true });
new ResizeObserver(() => keepingPlace(refreshLayout)).observe(scroller);

// The view as a link.

let hashTimer = 0;
const hashSoon = () => { clearTimeout(hashTimer); hashTimer = setTimeout(writeHash, 250); };
let written = "";
function writeHash() {
  const parts = new URLSearchParams();
  if (view.mode === "xy") {
    parts.set("view", "xy");
    for (const key of ["x", "y", "page"]) parts.set(key, view[key]);
    if (view.page && view.pageCode >= 0) parts.set("at-page", axisText(view.page, view.pageCode));
    if (view.cell !== "first") parts.set("cell", view.cell);
  }
  for (const key of ["group", "sort"]) if (view[key]) parts.set(key, view[key]);
  if (view.descending) parts.set("descending", "1");
  if (view.query) parts.set("q", view.query);
  if (view.state !== "all") parts.set("state", view.state);
  for (const [name, codes] of view.facets) for (const code of codes) parts.append("only", JSON.stringify([name, columns.get(name).values[code]]));
  if (view.current) parts.set("item", view.current);
  written = `#${parts}`;
  try { history.replaceState(null, "", written); } catch (_) { /* some browsers refuse it for files */ }
}

function readHash() {
  const parts = new URLSearchParams(location.hash.slice(1));
  const one = (key, allowed, otherwise) => (allowed(parts.get(key)) ? parts.get(key) : otherwise);
  const isColumn = (name) => columns.has(name);
  view.mode = parts.get("view") === "xy" ? "xy" : "grid";
  for (const key of ["x", "y", "page", "group"]) view[key] = one(key, isColumn, "");
  view.sort = one("sort", (name) => isColumn(name) || (name !== null && has(SORTS, name)), "");
  view.cell = one("cell", (cellMode) => ["all", "one"].includes(cellMode), "first");
  view.state = one("state", (state) => state !== null && has(STATES, state), "all");
  view.descending = parts.has("descending");
  view.query = search.value = parts.get("q") || "";
  view.facets = new Map();
  const codeOf = (name, value) => (columns.has(name) ? columns.get(name).values.findIndex((each) => String(each) === String(value)) : -1);
  for (const text of parts.getAll("only")) {
    try {
      const [name, value] = JSON.parse(text);
      const code = codeOf(name, value);
      if (code >= 0) (view.facets.get(name) || view.facets.set(name, new Set()).get(name)).add(code);
    } catch (_) { /* a link that was cut off */ }
  }
  view.pageCode = view.page ? codeOf(view.page, parts.get("at-page")) : EMPTY;
  view.current = itemsById.has(parts.get("item")) ? parts.get("item") : null;
}
addEventListener("hashchange", () => { if (location.hash !== written) { readHash(); refresh(); moveTo(currentItem()); } });

readHash();
refresh();
moveTo(currentItem());
scroller.focus({ preventScroll: true });
if (DATA.live) { setLive("Running"); live.timer = setTimeout(askForNews, LIVE_EVERY_MS); }
