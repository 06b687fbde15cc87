// What there is to see. A column holds its distinct values once; a task holds, for each column, a number among them.

const DATA = JSON.parse(document.getElementById("data").textContent);
document.getElementById("data").remove();

const tasks = [];            // {key, index, row, job, delay, execution}
const taskNumbers = new Map();
const columns = new Map();   // by name, in the order of their appearance
let items = [];              // images and failures, by row and sample
const itemsById = new Map();

const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });
const has = (object, name) => Object.prototype.hasOwnProperty.call(object, name);
const isWhole = (text) => /^\d+$/.test(text);

/** Order two values: numbers by size (seeds are text, since a number would be rounded), the rest as people sort. */
function compareValues(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  const [x, y] = [String(a), String(b)];
  if (isWhole(x) && isWhole(y)) {
    const [p, q] = [x.replace(/^0+(?=.)/, ""), y.replace(/^0+(?=.)/, "")];
    return p.length - q.length || (p < q ? -1 : p > q ? 1 : 0);
  }
  return collator.compare(x, y);
}

class Column {
  constructor(name, isOwn = false) {
    this.name = name;
    this.isOwn = isOwn;      // an image's own, such as its sample, and not its row's
    this.values = [];
    this.lower = [];
    this.codes = [];         // by task
    this.numbers = new Map();
    this.ranked = null;
  }
  code(value) {
    const key = `${typeof value} ${value}`;
    let code = this.numbers.get(key);
    if (code === undefined) {
      code = this.values.length;
      this.numbers.set(key, code);
      this.values.push(value);
      this.lower.push(String(value).toLowerCase());
      this.ranked = null;
    }
    return code;
  }
  of(item) {
    const code = this.isOwn ? item.own[this.name] : this.codes[item.task];
    return code === undefined ? -1 : code;
  }
  /** For each code its place among the sorted values. */
  ranks() {
    if (!this.ranked) {
      const order = this.values.map((_, code) => code).sort((a, b) => compareValues(this.values[a], this.values[b]));
      this.ranked = new Int32Array(order.length);
      order.forEach((code, rank) => { this.ranked[code] = rank; });
    }
    return this.ranked;
  }
  text(code) { return code < 0 ? "–" : String(this.values[code]); }
}

for (const name of ["sample", "seed", "node"]) columns.set(name, new Column(name, true));

/** What differs between images: what was asked for first, then what an image has of its own. */
let varyingNow = [];
const varying = () => varyingNow;
function noteVarying() {
  varyingNow = [...columns.values()].filter((column) => column.values.length > 1).sort((a, b) => a.isOwn - b.isOwn);
}
const path = (file) => `./${file.split("/").map(encodeURIComponent).join("/")}`;
const padded = (number, digits) => String(number).padStart(digits, "0");

function taskNumber(row) {
  const [key, index, id, job, delay, execution] = row;
  let number = taskNumbers.get(key);
  if (number === undefined) {
    number = tasks.length;
    taskNumbers.set(key, number);
    tasks.push(null);
  }
  tasks[number] = { key, index, row: id, lower: id.toLowerCase(), job, delay, execution };
  return number;
}

function addItem(item) {
  const known = itemsById.get(item.id);
  if (known) Object.assign(known, item);
  else { itemsById.set(item.id, item); items.push(item); }
}

/** Take tasks in: those of the page, and later those that a batch has changed meanwhile. */
function ingest(data) {
  const place = data.tasks.map(taskNumber);
  for (const given of data.columns) {
    if (!columns.has(given.name)) columns.set(given.name, new Column(given.name));
    const column = columns.get(given.name);
    const codes = given.values.map((value) => column.code(value));
    given.codes.forEach((code, number) => { if (code >= 0) column.codes[place[number]] = codes[code]; });
  }
  const gone = new Set(place.map((number) => `${padded(tasks[number].index, 6)}_x`).filter((id) => itemsById.has(id)));
  if (gone.size) {
    items = items.filter((item) => !gone.has(item.id));
    gone.forEach((id) => itemsById.delete(id));
  }
  data.images.forEach(([local, sample, seed, file, width, height, bytes, node], number) => {
    const task = place[local];
    const { index } = tasks[task];
    const id = `${padded(index, 6)}_${sample}`;
    const folder = padded(Math.floor(index / 1000), 3);
    const name = file || `images/${folder}/${id}.png`;
    addItem({
      id, task, index, sample, seed, file: name, width, height, bytes, failure: null,
      kind: name.startsWith("images/") ? "image" : "file",
      thumb: data.thumbs ? data.thumbs[number] : `./__gallery__/thumbs/${folder}/${id}.webp`,
      own: {
        sample: columns.get("sample").code(sample),
        seed: seed ? columns.get("seed").code(seed) : -1,
        node: node ? columns.get("node").code(node) : -1,
      },
    });
  });
  data.failures.forEach(([local, code, message, nodeId, nodeType, tries, line, job]) => {
    const task = place[local];
    const { index } = tasks[task];
    addItem({
      id: `${padded(index, 6)}_x`, task, index, sample: Infinity, seed: null, file: null, width: 0, height: 0, bytes: 0,
      kind: "failure", thumb: null, own: {}, failure: { code, message, nodeId, nodeType, tries, line, job },
    });
  });
  items.sort((a, b) => a.index - b.index || a.sample - b.sample);
  noteVarying();
}

/** What tells this image from its neighbours, in few words. */
function caption(item) {
  const parts = [];
  for (const column of captionColumns()) {
    const code = column.of(item);
    if (code >= 0) parts.push(typeof column.values[code] === "number" ? `${column.name} ${column.text(code)}` : column.text(code));
  }
  return parts.join(" · ") || item.id;
}

let captionsFor = null;
function captionColumns() {
  if (captionsFor && captionsFor.items === items.length) return captionsFor.columns;
  const short = varying().filter((column) => !column.isOwn && column.values.length < Math.max(64, tasks.length / 2)
    && column.lower.every((text) => text.length <= 28));
  const chosen = short.length ? short.slice(0, 3) : varying().filter((column) => !column.isOwn).slice(0, 1);
  captionsFor = { items: items.length, columns: chosen };
  return chosen;
}

ingest(DATA);
