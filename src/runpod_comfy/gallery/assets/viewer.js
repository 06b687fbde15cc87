// One item, large, with all that is known of it; and the flip book, which moves along the axes in place.

const spanOf = (seconds) => (seconds === null || seconds === undefined ? null : seconds < 100 ? `${seconds.toFixed(1)} s` : `${Math.round(seconds / 60)} min`);
const sizeOf = (bytes) => (bytes >= 1e6 ? `${(bytes / 1e6).toFixed(1)} MB` : `${Math.max(1, Math.round(bytes / 1e3))} KB`);

const promptColumn = () => columns.get("prompt")
  || [...columns.values()].filter((column) => /prompt|text|caption/i.test(column.name))[0] || null;

function fact(list, name, value) {
  if (value === null || value === undefined || value === "") return;
  list.append(h("dt", { textContent: name }), h("dd", { textContent: value, dir: "auto" }));
}

/** All parameters, and what one would copy. */
function details(item) {
  const task = tasks[item.task];
  const panel = h("aside.details", { "aria-label": "Details" });
  panel.append(h("h2", { textContent: item.failure ? `Row ${task.row} failed` : item.id, title: task.key }));
  const tools = h("div.tools");
  const prompt = promptColumn();
  const promptCode = prompt ? prompt.of(item) : -1;
  const copier = (label, id, text, what) => tools.append(h("button.plain", { type: "button", id, textContent: label, onclick: () => copy(text, what) }));
  if (promptCode >= 0) copier("Copy prompt", "copy-prompt", prompt.text(promptCode), "Prompt");
  if (item.seed) copier("Copy seed", "copy-seed", item.seed, "Seed");
  copier("Copy rerun command", "copy-rerun", rerunCommand(item), "Command");
  panel.append(tools);
  if (item.failure) {
    const { code, message, nodeId, nodeType, tries, line, job } = item.failure;
    panel.append(h("p.reason", { textContent: message || code }));
    const why = h("dl");
    fact(why, "error", code);
    fact(why, "node", [nodeType, nodeId && `#${nodeId}`].filter(Boolean).join(" "));
    fact(why, "tries", tries > 1 ? tries : null);
    fact(why, "line", line);
    fact(why, "job", job);
    panel.append(why);
  }
  const list = h("dl");
  for (const column of columns.values()) {
    if (column.isOwn) continue;
    const code = column.of(item);
    if (code >= 0) fact(list, column.name, column.text(code));
  }
  fact(list, "seed", item.seed);
  panel.append(list);
  const about = h("dl.about");
  fact(about, "row", task.row);
  fact(about, "sample", item.failure ? null : item.sample);
  fact(about, "size", item.width ? `${item.width} × ${item.height}, ${sizeOf(item.bytes)}` : item.bytes ? sizeOf(item.bytes) : null);
  fact(about, "from", columns.get("node").of(item) >= 0 ? columns.get("node").text(columns.get("node").of(item)) : null);
  fact(about, "job", item.failure ? null : task.job);
  fact(about, "waited", spanOf(task.delay));
  fact(about, "computed", spanOf(task.execution));
  panel.append(about);
  if (item.file) panel.append(h("a.file", { href: path(item.file), target: "_blank", rel: "noopener", textContent: item.file }));
  return panel;
}

/** Five stars and a cross that are buttons. */
function starButtons(item) {
  const stars = starsOf(item);
  const bar = h("span.stars", { role: "group", "aria-label": "Rating" });
  for (let number = 1; number <= 5; number++) {
    bar.append(button(`${number} star${number > 1 ? "s" : ""} (${number})`, "star", () => choose(item, stars === number ? 0 : number), { "aria-pressed": stars >= number }));
  }
  bar.append(button("Reject (X)", "reject", () => choose(item, stars < 0 ? 0 : -1), { "aria-pressed": stars < 0, className: "icon no" }));
  return bar;
}

let viewer = null;

function openViewer(item, { isBook = false } = {}) {
  if (!item) return;
  closeViewer();
  const image = h("img", { alt: "", draggable: false });
  const layer = h("div.layer", {}, image);
  const host = h("div.stage", {}, layer);
  const bar = h("header.bar");
  const side = h("div.side");
  const foot = h("footer.book");
  const dialog = h("dialog.viewer", { "aria-label": isBook ? "Flip book" : "Viewer" }, bar, h("div.body", {}, host, side), foot);
  viewer = { dialog, item: null, image, layer, stage: new Stage(host, [layer]), bar, side, foot, isBook, cycle: 0 };
  dialog.addEventListener("cancel", closeViewer);
  document.body.append(dialog);
  dialog.showModal();
  dialog.classList.toggle("detailed", settings.detailed);
  viewItem(item);
}

/** At once, and not when the browser tells of it: the next key may be there already. */
function closeViewer() {
  if (!viewer) return;
  const { dialog, cycle, stage } = viewer;
  viewer = null;
  clearInterval(cycle);
  leave(dialog, stage);
}

function leave(dialog, stage) {
  stage.watcher.disconnect();
  dialog.close();
  dialog.remove();
  scroller.focus({ preventScroll: true });
  moveTo(currentItem());
}

function viewItem(item) {
  if (!viewer || !item) return;
  viewer.item = item;
  view.current = item.id;
  const shown = visible().found;
  const at = shown.indexOf(item);
  viewer.layer.querySelectorAll("video, audio, .why").forEach((node) => node.remove());
  showFull(viewer.image, item);
  viewer.image.alt = caption(item);
  if (item.kind === "file") viewer.layer.append(mediaOf(item));
  if (item.failure) viewer.layer.append(h("p.why", { textContent: item.failure.message || item.failure.code }));
  viewer.stage.apply();
  viewer.bar.replaceChildren(
    h("span.where", { textContent: `${at + 1} of ${shown.length}` }), h("span.title", { textContent: caption(item) }), h("span.grow"),
    ...(item.failure ? [] : [starButtons(item)]),
    button("Compare with another (c)", "compare", () => pin(item)),
    button("Details (i)", "menu", toggleDetails, { "aria-pressed": settings.detailed }),
    button("Close (Esc)", "close", closeViewer));
  viewer.side.replaceChildren(details(item));
  if (viewer.isBook) viewer.foot.replaceChildren(...bookBars(item));
  for (const near of [shown[at + 1], shown[at - 1]]) if (near && near.kind === "image" && !DATA.thumbs) new Image().src = path(near.file);
  hashSoon();
}

function mediaOf(item) {
  const ending = item.file.split(".").pop().toLowerCase();
  if (["mp4", "webm", "mov", "mkv"].includes(ending)) return h("video", { src: path(item.file), controls: true, loop: true });
  if (["mp3", "wav", "flac", "ogg", "opus", "m4a"].includes(ending)) return h("audio", { src: path(item.file), controls: true });
  return h("p.why", { textContent: `${item.file} is no picture.` });
}

function toggleDetails() {
  settings.detailed = !settings.detailed;
  keepSettings();
  if (viewer) { viewer.dialog.classList.toggle("detailed", settings.detailed); viewItem(viewer.item); }
}

/** A slider for each axis; the picture changes in place, zoom and all. */
function bookBars(item) {
  const { xs, ys, pages } = xy.layout;
  const at = xy.cellOf(item) || { x: 0, y: 0 };
  const bars = [];
  const bar = (name, codes, place, turn, keys) => {
    if (!name || codes.length < 2) return;
    bars.push(h("label", { title: `${name} (${keys})` }, h("span.name", { textContent: name }),
      h("input", { type: "range", min: 0, max: codes.length - 1, value: place, "aria-label": name, oninput: (event) => turn(Number(event.target.value)) }),
      h("output", { textContent: axisText(name, codes[place]) })));
  };
  bar(view.x, xs, at.x, (x) => flipTo(x, at.y), "← →");
  bar(view.y, ys, at.y, (y) => flipTo(at.x, y), "↑ ↓");
  bar(view.page, pages, pages.indexOf(view.pageCode), (page) => flipPage(pages[page], at), "[ ]");
  bars.push(h("button.plain", { type: "button", id: "cycle", onclick: toggleCycle }, viewer.cycle ? "Stop" : `Play along ${view.x || view.y}`));
  return bars;
}

function flipTo(x, y) {
  const item = xy.shownAt(x, y);
  if (item) viewItem(item);
  else toast(`Nothing at ${xy.label(x, y)}`);
}

function flipPage(code, at) {
  view.pageCode = code;
  refresh();
  viewItem(xy.shownAt(at.x, at.y) || xy.layout.found[0]);
}

function toggleCycle() {
  if (viewer.cycle) { clearInterval(viewer.cycle); viewer.cycle = 0; }
  else {
    viewer.cycle = setInterval(() => {
      const { x, y } = xy.cellOf(viewer.item) || { x: 0, y: 0 };
      const { xs, ys } = xy.layout;
      flipTo(view.x ? (x + 1) % xs.length : x, view.x ? y : (y + 1) % ys.length);
    }, 900);
  }
  viewItem(viewer.item);
}

function viewerKey(key) {
  if (viewer.stage.key(key)) return true;
  if (viewer.isBook) {
    const at = xy.cellOf(viewer.item) || { x: 0, y: 0 };
    const { xs, ys, pages } = xy.layout;
    const wrap = (number, count) => (number + count) % count;
    if (key === "ArrowLeft" || key === "ArrowRight") flipTo(wrap(at.x + (key === "ArrowRight" ? 1 : -1), xs.length), at.y);
    else if (key === "ArrowUp" || key === "ArrowDown") flipTo(at.x, wrap(at.y + (key === "ArrowDown" ? 1 : -1), ys.length));
    else if ((key === "[" || key === "]") && pages.length) flipPage(pages[wrap(pages.indexOf(view.pageCode) + (key === "]" ? 1 : -1), pages.length)], at);
    else return false;
    return true;
  }
  const shown = visible().found;
  const at = shown.indexOf(viewer.item);
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: shown.length - 1 }[key];
  if (to === undefined) return false;
  viewItem(shown[Math.min(shown.length - 1, Math.max(0, to))]);
  return true;
}
