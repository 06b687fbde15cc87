// News of a batch that runs: scripts beside the page, since a page from disk may add those and fetch nothing.

const live = { next: DATA.live ? DATA.live.parts : 0, round: 0, timer: 0 };
const LIVE_EVERY_MS = 5000;

function addScript(source, onmissing) {
  const script = document.createElement("script");
  script.src = source;
  script.onload = () => script.remove();
  script.onerror = () => { script.remove(); onmissing(); };
  document.head.append(script);
}

function askForNews() {
  live.round += 1;
  addScript(`./__gallery__/live.js?${live.round}`, () => setLive(""));
  live.timer = setTimeout(askForNews, LIVE_EVERY_MS);
}

function setLive(text, onclick = null) {
  liveChip.hidden = !text;
  liveChip.textContent = text;
  liveChip.onclick = onclick;
  liveChip.disabled = !onclick;
}

if (DATA.live) {
  window.runpodComfyGallery = {
    ask() { clearTimeout(live.timer); askForNews(); },
    status({ session, parts, running, at }) {
      if (session !== DATA.live.session) {
        clearTimeout(live.timer);
        setLive("A new run has begun: reload", () => location.reload());
        return;
      }
      // A batch that was killed says nothing of its end.
      const silent_min = Math.floor((Date.now() / 1000 - at) / 60);
      setLive(!running ? "" : silent_min < 3 ? "Running" : `No news for ${silent_min} min`);
      if (live.next < parts) addScript(`./__gallery__/live/${padded(live.next, 6)}.js`, () => setLive("Reload for what is new", () => location.reload()));
      else if (!running) clearTimeout(live.timer);
    },
    part(data) {
      if (data.part !== live.next) return;
      live.next += 1;
      ingest(data);
      refresh();
      clearTimeout(live.timer);
      live.timer = setTimeout(askForNews, 50);   // perhaps there are more already
    },
  };
}
