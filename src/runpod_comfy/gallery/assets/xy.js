// Any two variables against each other, a third by pages. Values can be hidden; what is missing or failed shows where.

const LABELS = 148;   // width of the rows' labels
const TOP = 40;       // height of the columns' labels
const EMPTY = -2;

const axisColumns = () => varying().filter((column) => column.name !== "node" || column.values.length > 1);
const hiddenOf = (name) => view.hidden.get(name) || view.hidden.set(name, new Set()).get(name);

function axisCodes(name, found) {
  if (!name || !columns.has(name)) return [EMPTY];
  const column = columns.get(name);
  const there = new Set();
  for (const item of found) there.add(column.of(item));
  const hidden = hiddenOf(name);
  const ranks = column.ranks();
  return [...there].filter((code) => code >= 0 && !hidden.has(code)).sort((a, b) => ranks[a] - ranks[b]);
}

const axisText = (name, code) => (code === EMPTY ? "" : columns.get(name).text(code));

/** Two variables that a grid was probably made over: few values each, many together. */
function guessAxes() {
  const able = axisColumns().filter((column) => !column.isOwn && column.values.length <= 40)
    .sort((a, b) => (typeof b.values[0] === "number") - (typeof a.values[0] === "number"));
  const rest = axisColumns().filter((column) => !able.includes(column));
  const [x, y] = [...able, ...rest];
  if (!view.x || !columns.has(view.x)) view.x = x ? x.name : "";
  if (!view.y || !columns.has(view.y)) view.y = y ? y.name : "";
}

const xy = {
  layout: null,
  measure(found, width) {
    const pages = view.page ? axisCodes(view.page, found) : [];
    if (pages.length && !pages.includes(view.pageCode)) [view.pageCode] = pages;
    const shown = pages.length ? found.filter((item) => columns.get(view.page).of(item) === view.pageCode) : found;
    const xs = axisCodes(view.x, shown);
    const ys = axisCodes(view.y, shown);
    const xPlace = new Map(xs.map((code, place) => [code, place]));
    const yPlace = new Map(ys.map((code, place) => [code, place]));
    const cells = new Map();
    let most = 1;
    for (const item of shown) {
      const x = view.x ? xPlace.get(columns.get(view.x).of(item)) : 0;
      const y = view.y ? yPlace.get(columns.get(view.y).of(item)) : 0;
      if (x === undefined || y === undefined) continue;
      const key = y * xs.length + x;
      if (cells.has(key)) cells.get(key).push(item);
      else cells.set(key, [item]);
      most = Math.max(most, cells.get(key).length);
    }
    // Pictures before reasons: a cell with both shows what there is.
    for (const inside of cells.values()) inside.sort((a, b) => Boolean(a.failure) - Boolean(b.failure));
    const cellWidth = Math.max(view.size, Math.min(2 * view.size, Math.floor((width - LABELS - GAP) / Math.max(1, xs.length)) - GAP));
    const cellHeight = Math.round(cellWidth * commonShape(shown));
    this.layout = {
      found: shown, pages, xs, ys, cells, most, cellWidth, cellHeight,
      width: LABELS + GAP + xs.length * (cellWidth + GAP), height: TOP + GAP + ys.length * (cellHeight + GAP),
    };
  },
  boxes(top, bottom, left, right) {
    const { xs, cells, cellWidth, cellHeight } = this.layout;
    const boxes = [];
    const [firstX, lastX] = this.range(left - LABELS, right - LABELS, cellWidth, xs.length);
    const [firstY, lastY] = this.range(top - TOP, bottom - TOP, cellHeight, this.layout.ys.length);
    for (let y = firstY; y <= lastY; y++) {
      for (let x = firstX; x <= lastX; x++) {
        const inside = cells.get(y * xs.length + x);
        if (!inside) continue;
        const at = { x: LABELS + GAP + x * (cellWidth + GAP), y: TOP + GAP + y * (cellHeight + GAP) };
        boxes.push(...this.inCell(inside, at, this.label(x, y)));
      }
    }
    return boxes;
  },
  inCell(inside, at, label) {
    const { cellWidth: width, cellHeight: height } = this.layout;
    if (view.cell === "all" && inside.length > 1) {
      const side = Math.min(4, Math.ceil(Math.sqrt(inside.length)));
      const [w, h_] = [Math.floor((width - (side - 1) * 2) / side), Math.floor((height - (side - 1) * 2) / side)];
      return inside.slice(0, side * side).map((item, number) => ({
        item, width: w, height: h_, x: at.x + (number % side) * (w + 2), y: at.y + Math.floor(number / side) * (h_ + 2),
        caption: `${label} · ${number + 1} of ${inside.length}`,
      }));
    }
    const number = view.cell === "one" ? Math.min(view.sampleAt, inside.length - 1) : 0;
    const more = inside.length > 1 ? ` · ${number + 1} of ${inside.length}` : "";
    return [{ item: inside[number], ...at, width, height, caption: `${label}${more}`, of: inside.length > 1 ? `${number + 1}/${inside.length}` : "" }];
  },
  range(from, to, size, count) {
    return [Math.max(0, Math.floor(from / (size + GAP))), Math.min(count - 1, Math.floor(to / (size + GAP)))];
  },
  label(x, y) {
    const { xs, ys } = this.layout;
    const parts = [];
    if (view.x) parts.push(`${view.x} ${axisText(view.x, xs[x])}`);
    if (view.y) parts.push(`${view.y} ${axisText(view.y, ys[y])}`);
    return parts.join(" · ") || "all";
  },
  cellOf(item) {
    const { xs, cells } = this.layout;
    for (const [key, inside] of cells) if (inside.includes(item)) return { x: key % xs.length, y: Math.floor(key / xs.length) };
    return null;
  },
  place(item) {
    const at = this.cellOf(item);
    if (!at) return null;
    const { cellWidth, cellHeight } = this.layout;
    const [top, left] = [at.y * (cellHeight + GAP), at.x * (cellWidth + GAP)];
    return { top, bottom: top + TOP + GAP + cellHeight, left, right: left + LABELS + GAP + cellWidth };
  },
  /** What a cell shows first. */
  shownAt(x, y) {
    const inside = this.layout.cells.get(y * this.layout.xs.length + x);
    return inside && inside[view.cell === "one" ? Math.min(view.sampleAt, inside.length - 1) : 0];
  },
  step(item, dx, dy) {
    const { xs, ys } = this.layout;
    const at = this.cellOf(item) || { x: 0, y: 0 };
    let [x, y] = [at.x + Math.sign(dx), at.y + Math.sign(dy)];
    while (x >= 0 && y >= 0 && x < xs.length && y < ys.length) {
      const next = this.shownAt(x, y);
      if (next) return next;
      x += Math.sign(dx);
      y += Math.sign(dy);
    }
    return item || this.layout.found[0];
  },
  /** Labels of what is in sight; a click on one hides its value. */
  heads(top, bottom, left, right) {
    const { xs, ys, cellWidth, cellHeight } = this.layout;
    const label = (name, code, style, kind) => {
      const node = h(`button.axis.${kind}`, {
        type: "button", textContent: axisText(name, code), title: `${name} = ${axisText(name, code)}: click to hide`,
        onclick: () => { hiddenOf(name).add(code); refresh(); },
      });
      Object.assign(node.style, style);
      return node;
    };
    const across = [];
    const [firstX, lastX] = this.range(left - LABELS, right - LABELS, cellWidth, xs.length);
    for (let x = firstX; x <= lastX && view.x; x++) across.push(label(view.x, xs[x], { left: `${LABELS + GAP + x * (cellWidth + GAP)}px`, width: `${cellWidth}px` }, "x"));
    const down = [];
    const [firstY, lastY] = this.range(top - TOP, bottom - TOP, cellHeight, ys.length);
    for (let y = firstY; y <= lastY && view.y; y++) down.push(label(view.y, ys[y], { top: `${GAP + y * (cellHeight + GAP)}px`, height: `${cellHeight}px` }, "y"));
    return { across, down };
  },
};

function transpose() {
  [view.x, view.y] = [view.y, view.x];
  refresh();
}

/** The bar above the table: which variables, which page, what a cell shows. */
function axisBar() {
  const names = axisColumns().map((column) => column.name);
  const choice = (title, key, none) => h("label.field", { title: `${title} axis` }, h("span", {}, title), h("select", {
    id: `axis-${key}`, "aria-label": `${title} axis`,
    onchange: (event) => { view[key] = event.target.value; if (key === "page") view.pageCode = EMPTY; refresh(); },
  }, ...(none ? [h("option", { value: "", textContent: "none", selected: !view[key] })] : []),
  ...names.map((name) => h("option", { value: name, textContent: name, selected: view[key] === name }))));
  const { pages, most } = xy.layout;
  const bar = h("div.bar.axes", { role: "toolbar", "aria-label": "Axes" },
    choice("Across", "x", true), button("Swap the axes (t)", "swap", transpose, { id: "swap" }), choice("Down", "y", true), choice("Pages", "page", true));
  if (pages.length) {
    const at = pages.indexOf(view.pageCode);
    const turn = (by) => () => { view.pageCode = pages[(at + by + pages.length) % pages.length]; refresh(); };
    bar.append(h("span.stepper", {}, button("Previous page ([)", "left", turn(-1)), h("output", { id: "page-value", textContent: axisText(view.page, view.pageCode), title: `page ${at + 1} of ${pages.length}` }), button("Next page (])", "right", turn(1))));
  }
  if (most > 1) {
    const cells = { first: "the first", all: `all ${most}`, one: "one by one" };
    bar.append(h("label.field", { title: "What a cell shows where several images match" }, h("span", {}, "Cell"), h("select", {
      id: "cell", "aria-label": "What a cell shows", onchange: (event) => { view.cell = event.target.value; refresh(); },
    }, ...Object.entries(cells).map(([value, textContent]) => h("option", { value, textContent, selected: view.cell === value })))));
    if (view.cell === "one") {
      const turn = (by) => () => { view.sampleAt = (view.sampleAt + by + most) % most; refresh(); };
      bar.append(h("span.stepper", {}, button("Previous (,)", "left", turn(-1)), h("output", { textContent: `${view.sampleAt + 1} of ${most}` }), button("Next (.)", "right", turn(1))));
    }
  }
  const hidden = [view.x, view.y, view.page].filter(Boolean).reduce((sum, name) => sum + hiddenOf(name).size, 0);
  if (hidden) bar.append(h("button.chip", { type: "button", id: "unhide", textContent: `${hidden} hidden: show`, onclick: () => { view.hidden.clear(); refresh(); } }));
  bar.append(h("span.grow"), h("button.plain", { type: "button", id: "flip", title: "One picture at a time, a slider for each axis (f)", onclick: () => openViewer(currentItem() || xy.layout.found[0], { isBook: true }) }, icon("play"), "Flip book"));
  return bar;
}
