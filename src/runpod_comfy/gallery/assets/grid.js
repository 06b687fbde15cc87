// The grid: tiles in rows, in sections where there are groups. Where each is follows from its number alone.

const GAP = 8;
const CAPTION = 20;
const HEAD = 44;

/** The most common shape, as height over width: tiles have it, so that pictures fill them. */
function commonShape(found) {
  const counts = new Map();
  for (let number = 0; number < found.length; number += Math.max(1, Math.floor(found.length / 500))) {
    const { width, height } = found[number];
    if (width && height) { const shape = (height / width).toFixed(2); counts.set(shape, (counts.get(shape) || 0) + 1); }
  }
  const [best] = [...counts].sort((a, b) => b[1] - a[1])[0] || ["1"];
  return Math.min(1.6, Math.max(0.5, Number(best)));
}

const grid = {
  layout: null,
  measure(found, width) {
    const across = Math.max(1, Math.floor((width - GAP) / (view.size + GAP)));
    const tileWidth = Math.floor((width - GAP) / across) - GAP;
    const captioned = tileWidth >= 120 ? CAPTION : 0;
    const tileHeight = Math.round(tileWidth * commonShape(found)) + captioned;
    const sections = [];
    if (view.group && columns.has(view.group)) {
      const column = columns.get(view.group);
      found.forEach((item, number) => {
        const code = column.of(item);
        const last = sections[sections.length - 1];
        if (last && last.code === code) last.count += 1;
        else sections.push({ code, label: column.text(code), name: column.name, start: number, count: 1 });
      });
    } else if (found.length) {
      sections.push({ code: null, label: "", start: 0, count: found.length });
    }
    let top = view.group ? 0 : GAP;
    for (const section of sections) {
      section.top = top;
      section.head = section.code === null ? 0 : HEAD;
      section.rows = Math.ceil(section.count / across);
      top += section.head + section.rows * (tileHeight + GAP);
      section.bottom = top;
    }
    this.layout = { found, across, tileWidth, tileHeight, captioned, sections, height: top + GAP, width };
  },
  sectionAt(top) {
    const { sections } = this.layout;
    let [low, high] = [0, sections.length - 1];
    while (low < high) { const middle = (low + high) >> 1; if (sections[middle].bottom <= top) low = middle + 1; else high = middle; }
    return low;
  },
  boxes(top, bottom) {
    const { found, across, tileWidth, tileHeight, sections } = this.layout;
    const boxes = [];
    for (let number = this.sectionAt(top); number < sections.length && sections[number].top < bottom; number++) {
      const section = sections[number];
      const start = section.top + section.head;
      const first = Math.max(0, Math.floor((top - start) / (tileHeight + GAP)));
      const last = Math.min(section.rows - 1, Math.floor((bottom - start) / (tileHeight + GAP)));
      for (let place = first * across; place < Math.min(section.count, (last + 1) * across); place++) {
        boxes.push({
          item: found[section.start + place], width: tileWidth, height: tileHeight,
          x: GAP + (place % across) * (tileWidth + GAP), y: start + Math.floor(place / across) * (tileHeight + GAP),
        });
      }
    }
    return boxes;
  },
  heads(top, bottom) {
    const { sections } = this.layout;
    const heads = [];
    if (!sections.length || sections[0].code === null) return heads;
    for (let number = this.sectionAt(top); number < sections.length && sections[number].top < bottom; number++) heads.push(sections[number]);
    return heads;
  },
  /** Where an item is: its top and bottom. */
  place(item) {
    const { found, across, tileHeight, sections } = this.layout;
    const number = found.indexOf(item);
    const section = sections.find((each) => number >= each.start && number < each.start + each.count);
    if (!section) return null;
    const top = section.top + section.head + Math.floor((number - section.start) / across) * (tileHeight + GAP);
    return { top: top - (section.head ? HEAD : 0), bottom: top + tileHeight, left: 0, right: 0 };
  },
  step(item, dx, dy, height) {
    const { found, across, tileHeight, sections } = this.layout;
    const number = found.indexOf(item);
    if (number < 0) return found[0];
    if (dx) return found[Math.min(found.length - 1, Math.max(0, number + dx))];
    const lines = Math.abs(dy) > 1 ? Math.max(1, Math.floor(height / (tileHeight + GAP))) : 1;
    const at = sections.findIndex((each) => number < each.start + each.count);
    const inside = number - sections[at].start;
    const wanted = inside + Math.sign(dy) * lines * across;
    if (wanted >= 0 && wanted < sections[at].count) return found[sections[at].start + wanted];
    // Out of this section: into the next, in the same column, or its last.
    const next = sections[at + Math.sign(dy)];
    if (!next) return found[dy > 0 ? found.length - 1 : inside % across];
    const column = inside % across;
    if (dy > 0) {
      const lastLine = Math.floor((sections[at].count - 1) / across);
      return Math.floor(inside / across) < lastLine ? found[sections[at].start + sections[at].count - 1] : found[next.start + Math.min(column, next.count - 1)];
    }
    const line = Math.floor((next.count - 1) / across) * across;
    return found[next.start + Math.min(line + column, next.count - 1)];
  },
};
