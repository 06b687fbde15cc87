// A picture, or two in step, that one zooms with the wheel and moves with the pointer.

class Stage {
  /** `layers` are boxes with one picture each; all of them are moved alike. */
  constructor(host, layers) {
    Object.assign(this, { host, layers, scale: 1, x: 0, y: 0 });
    host.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0018)), event);
    }, { passive: false });
    host.addEventListener("dblclick", (event) => (this.scale > 1.01 ? this.fit() : this.actual(event)));
    host.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || event.target.closest("button, .handle")) return;
      host.setPointerCapture(event.pointerId);
      const start = { x: event.clientX - this.x, y: event.clientY - this.y };
      const move = (moved) => { if (this.scale > 1) { this.x = moved.clientX - start.x; this.y = moved.clientY - start.y; this.apply(); } };
      host.addEventListener("pointermove", move);
      const end = () => host.removeEventListener("pointermove", move);
      host.addEventListener("pointerup", end, { once: true });
      host.addEventListener("pointercancel", end, { once: true });
    });
    this.watcher = new ResizeObserver(() => this.apply());
    this.watcher.observe(host);
  }
  images() { return this.layers.map((layer) => layer.querySelector("img")).filter(Boolean); }
  /** How many screen pixels one of the picture's has. */
  density() {
    const [image] = this.images();
    if (!image || !image.naturalWidth) return 1;
    const box = this.layers[0].getBoundingClientRect();
    return Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight) * this.scale;
  }
  zoom(by, event) {
    const scale = Math.min(32, Math.max(1, this.scale * by));
    const layer = (event && this.layers.find((each) => each.contains(event.target))) || this.layers[0];
    const box = layer.getBoundingClientRect();
    const at = event ? { x: event.clientX - box.left - box.width / 2, y: event.clientY - box.top - box.height / 2 } : { x: 0, y: 0 };
    this.x = at.x - (at.x - this.x) * (scale / this.scale);
    this.y = at.y - (at.y - this.y) * (scale / this.scale);
    this.scale = scale;
    this.apply();
  }
  actual(event) { this.zoom(Math.max(2, 1 / (this.density() * devicePixelRatio)), event); }
  fit() { Object.assign(this, { scale: 1, x: 0, y: 0 }); this.apply(); }
  apply() {
    const box = this.layers[0].getBoundingClientRect();
    const [overX, overY] = [(box.width * (this.scale - 1)) / 2, (box.height * (this.scale - 1)) / 2];
    this.x = Math.min(overX, Math.max(-overX, this.x));
    this.y = Math.min(overY, Math.max(-overY, this.y));
    for (const image of this.images()) image.style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.scale})`;
    this.host.classList.toggle("zoomed", this.scale > 1);
    this.host.classList.toggle("pixels", this.density() > 3);
  }
  key(key) {
    if (key === "+" || key === "=") this.zoom(1.5);
    else if (key === "-") this.zoom(1 / 1.5);
    else if (key === "z") { if (this.scale > 1) this.fit(); else this.actual(); }
    else return false;
    return true;
  }
}

/** Show an item's file, or its thumbnail where the file is not at hand, as when the page was sent alone. */
function showFull(image, item) {
  if (item.kind !== "image") { image.removeAttribute("src"); return; }
  image.onerror = () => { image.onerror = null; image.src = item.thumb; };
  const source = path(item.file);
  if (image.getAttribute("src") !== source) image.src = source;
}
