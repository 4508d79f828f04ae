"use strict";
// The gallery of `detect`. The pictures are in the element #pictures, in the order of detections.json:
// [name, width, height, thumbnail or "", original or "", detections]. The detections are a flat list of whole numbers,
// seven for each, by falling score: class, score in 1/10,000, x, y, width and height of the box in 1/10 pixel, and
// subclass or -1.
const PICTURES = JSON.parse(document.getElementById("pictures").textContent);
const { classes: CLASSES, finest: FINEST, shown: SHOWN, least: LOWEST } = JSON.parse(document.getElementById("about").textContent);
const STEP = 7, GAP = 14, CAPTION = 46, MARGIN = 600; // pixels around the window in which cards exist
const SVG = "http://www.w3.org/2000/svg";
const state = { least: SHOWN, chosen: new Set(), nothing: false, query: "", sort: "name" };
const find = (id) => document.getElementById(id);
const score = (value) => (value / 10000).toFixed(2);
const many = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function svgElement(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function dot(label) {
  const made = element("span", "dot");
  made.style.background = CLASSES[label].colour;
  return made;
}

// --- What is shown -------------------------------------------------------------------------------------------------

const folders = PICTURES.map(([name]) => name.replace(/[^/\\]*$/, ""));
const oneFolder = folders.every((folder) => folder === folders[0]);
const shortName = (number) => oneFolder ? PICTURES[number][0].slice(folders[0].length) : PICTURES[number][0].split(/[/\\]/).slice(-2).join("/");
const halves = (name) => [name.slice(0, -9), name.slice(-9)];
const collator = new Intl.Collator(undefined, { numeric: true });
const byName = PICTURES.map((_, number) => number).sort((a, b) => collator.compare(PICTURES[a][0], PICTURES[b][0]) || a - b);
const isChosen = (label) => !state.chosen.size || state.chosen.has(label);

// Detections of a picture that are shown. In the order of doubt, the best one is shown below the least score too.
function shownDetections(number, least = state.least) {
  const flat = PICTURES[number][5], found = [];
  for (let at = 0; at < flat.length; at += STEP) {
    if (flat[at + 1] < least) {
      if (state.sort !== "doubt" || found.length) break;
    }
    if (!isChosen(flat[at])) continue;
    const [x, y, width, height] = flat.slice(at + 2, at + 6).map((value) => value / 10);
    const name = CLASSES[flat[at]].name, finest = FINEST[flat[at + 6]] ?? name;
    found.push({
      label: flat[at], score: flat[at + 1], x, y, width, height, below: flat[at + 1] < least,
      name: finest === name ? name : `${name}: ${finest}`,
    });
    if (flat[at + 1] < least) break;
  }
  return found;
}

function choose() {
  const objects = new Array(CLASSES.length).fill(0), query = state.query.toLowerCase();
  const best = new Map(), result = [];
  let total = 0, withObjects = 0, withNothing = 0;
  for (const number of byName) {
    const [name, , , , , flat] = PICTURES[number];
    if (query && !name.toLowerCase().includes(query)) continue;
    let top = -1, fits = 0, any = 0;
    for (let at = 0; at < flat.length; at += STEP) {
      const value = flat[at + 1], chosen = isChosen(flat[at]);
      if (chosen && top < 0) top = value;
      if (value < state.least) {
        if (top >= 0) break;
        continue;
      }
      any++;
      objects[flat[at]]++;
      if (chosen) fits++;
    }
    withNothing += !any;
    const included = state.nothing && !any || (state.chosen.size ? fits > 0 || (state.sort === "doubt" && top >= 0) : !state.nothing);
    if (!included) continue;
    best.set(number, top);
    total += fits;
    withObjects += fits > 0;
    result.push(number);
  }
  if (state.sort === "score") result.sort((a, b) => best.get(b) - best.get(a));
  if (state.sort === "doubt") {
    const doubt = (number) => best.get(number) < 0 ? 2e4 : Math.abs(best.get(number) - state.least);
    result.sort((a, b) => doubt(a) - doubt(b));
  }
  return { result, objects, total, withObjects, withNothing };
}

// --- The grid: rows of equal height, of which only those near the window exist as elements ---------------------------

let order = [], places = [], rows = [];
const cards = new Map();
const grid = find("grid");

function layOut() {
  const width = grid.clientWidth, wanted = width < 480 ? 138 : width < 900 ? 175 : 205;
  places = [];
  rows = [];
  let top = 0, start = 0, sum = 0;
  const aspect = (number) => Math.min(Math.max(PICTURES[number][1] / PICTURES[number][2], 0.62), 2.6);
  const close = (end, height) => {
    let left = 0;
    for (let at = start; at < end; at++) {
      const own = Math.min(aspect(order[at]) * height, width);
      places.push({ left, top, width: own, height });
      left += own + GAP;
    }
    rows.push({ top, bottom: top + height + CAPTION, start, end });
    top += height + CAPTION + GAP;
    start = end;
    sum = 0;
  };
  for (let at = 0; at < order.length; at++) {
    sum += aspect(order[at]);
    const room = width - GAP * (at - start);
    if (sum * wanted >= room) close(at + 1, room / sum);
  }
  if (start < order.length) close(order.length, Math.min(wanted, (width - GAP * (order.length - 1 - start)) / sum));
  grid.style.height = `${Math.max(top - GAP, 0)}px`;
}

function boxesOf(found, svg) {
  for (const one of [...found].reverse()) {
    const group = svgElement("g", { "data-class": CLASSES[one.label].name, "data-score": one.score / 10000 });
    const place = { x: one.x, y: one.y, width: one.width, height: one.height };
    const frame = svgElement("rect", { ...place, stroke: CLASSES[one.label].colour });
    if (one.below) frame.classList.add("doubt");
    group.append(svgElement("rect", { ...place, class: "rim" }), frame);
    svg.append(group);
  }
}

function fill(card, number) {
  const [name, width, height, thumbnail] = PICTURES[number];
  const found = shownDetections(number);
  const photo = card.firstChild;
  let svg = photo.querySelector("svg");
  if (!svg) {
    if (thumbnail) {
      const image = element("img");
      image.alt = "";
      image.decoding = "async";
      image.src = thumbnail;
      photo.append(image);
    } else photo.append(element("span", "missing", "no preview"));
    svg = svgElement("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
    photo.append(svg);
  }
  svg.replaceChildren();
  boxesOf(found, svg);
  const line = card.lastChild;
  line.replaceChildren();
  const counts = new Map();
  for (const one of found) counts.set(one.label, [...(counts.get(one.label) || []), one]);
  for (const [label, ones] of counts) {
    const part = element("span");
    part.append(dot(label), ones.length > 1 ? `${CLASSES[label].name} × ${ones.length}` : `${ones[0].name} ${score(ones[0].score)}`);
    line.append(part);
  }
  if (!found.length) line.textContent = "nothing found";
  card.title = name;
  card.setAttribute("aria-label", `${name}: ${found.map((one) => `${one.name} ${score(one.score)}`).join(", ") || "nothing found"}`);
}

function showCards() {
  const above = grid.getBoundingClientRect().top, from = -above - MARGIN, to = -above + innerHeight + MARGIN;
  let low = 0, high = rows.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle].bottom < from) low = middle + 1; else high = middle;
  }
  const wanted = new Map();
  for (let row = low; row < rows.length && rows[row].top < to; row++)
    for (let at = rows[row].start; at < rows[row].end; at++) wanted.set(order[at], at);
  for (const [number, card] of cards) if (!wanted.has(number)) {
    card.remove();
    cards.delete(number);
  }
  let before = null;
  for (const [number, at] of wanted) {
    let card = cards.get(number);
    if (!card) {
      card = element("button", "card");
      card.type = "button";
      card.dataset.picture = number;
      const name = element("span", "name"), [begin, end] = halves(shortName(number)); // the ends tell camera files apart
      name.append(element("span", "begin", begin), element("span", "end", end));
      card.append(element("span", "photo"), name, element("span", "found"));
      fill(card, number);
      cards.set(number, card);
    }
    const { left, top, width, height } = places[at];
    card.style.cssText = `left:${left}px;top:${top}px;width:${width}px`;
    card.firstChild.style.height = `${height}px`;
    const next = before ? before.nextSibling : grid.firstChild;
    if (next !== card) grid.insertBefore(card, next); // the order of the elements is that of the Tab key
    before = card;
  }
}

function refresh() {
  const { result, objects, total, withObjects, withNothing } = choose();
  order = result;
  layOut();
  for (const [number, card] of cards) fill(card, number);
  showCards();
  const kind = state.chosen.size === 1 ? `${CLASSES[[...state.chosen][0]].name}: ` : "";
  find("said").textContent = `${kind}${many(total, "object")} with a score of at least ${score(state.least)}, in ${withObjects.toLocaleString("en")} of ${many(PICTURES.length, "picture")}`;
  find("empty").hidden = result.length > 0;
  showClasses(objects, withNothing);
  showScore();
}

// --- Controls --------------------------------------------------------------------------------------------------------

const classButtons = [];

function makeClasses() {
  const stored = new Array(CLASSES.length).fill(0), shown = new Array(CLASSES.length).fill(0);
  for (const [, , , , , flat] of PICTURES) for (let at = 0; at < flat.length; at += STEP) {
    stored[flat[at]]++;
    shown[flat[at]] += flat[at + 1] >= SHOWN;
  }
  const list = document.querySelector("#classes .list");
  const add = (label, name) => {
    const button = element("button", label < 0 ? "class none" : "class");
    button.type = "button";
    button.append(label < 0 ? element("span", "dot") : dot(label), element("span", "", name), element("span", "count"));
    button.addEventListener("click", () => {
      if (label < 0) state.nothing = !state.nothing;
      else if (!state.chosen.delete(label)) state.chosen.add(label);
      refresh();
      toTop();
    });
    list.append(button);
    classButtons.push({ label, name, button });
  };
  const labels = CLASSES.map((_, label) => label).filter((label) => stored[label]);
  labels.sort((a, b) => shown[b] - shown[a] || stored[b] - stored[a] || collator.compare(CLASSES[a].name, CLASSES[b].name));
  for (const label of labels) add(label, CLASSES[label].name);
  add(-1, "nothing found");
  find("class-query").hidden = labels.length < 15;
}

function showClasses(objects, withNothing) {
  const query = find("class-query").value.toLowerCase();
  for (const { label, name, button } of classButtons) {
    const count = label < 0 ? withNothing : objects[label], pressed = label < 0 ? state.nothing : state.chosen.has(label);
    button.lastChild.textContent = count.toLocaleString("en");
    button.setAttribute("aria-pressed", pressed);
    button.setAttribute("aria-label", label < 0 ? `${many(count, "picture")} without a detection` : `${name}: ${many(count, "object")}`);
    button.hidden = !pressed && (!count || !name.toLowerCase().includes(query));
  }
  const number = state.chosen.size + state.nothing;
  find("chosen").textContent = number ? `(${number} chosen)` : "";
}

const bars = 50, histogram = new Array(bars).fill(0);
for (const [, , , , , flat] of PICTURES)
  for (let at = 1; at < flat.length; at += STEP) histogram[Math.min(Math.floor(flat[at] * bars / 10000), bars - 1)]++;
const highest = Math.sqrt(Math.max(...histogram, 1));
histogram.forEach((count, bar) => {
  const height = count ? Math.max(10 * Math.sqrt(count) / highest, 0.5) : 0;
  document.querySelector(".histogram").append(svgElement("rect", { x: bar + 0.08, y: 10 - height, width: 0.84, height }));
});

function showScore() {
  for (const output of document.querySelectorAll("[data-least]")) output.textContent = score(state.least);
  for (const slider of [find("least"), find("least-large")]) slider.value = state.least / 10000;
  document.querySelectorAll(".histogram rect").forEach((bar, number) => bar.classList.toggle("shown", (number + 1) * 10000 / bars > state.least));
}

function toTop() {
  const start = grid.getBoundingClientRect().top + scrollY - find("said").offsetHeight - toolbar.offsetHeight;
  if (scrollY > start) scrollTo(0, start);
}

let waiting = false;
function soon(work) { // a slider sends more events than the screen shows
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; work(); });
}

for (const slider of [find("least"), find("least-large")]) {
  slider.min = Math.floor(LOWEST / 100) / 100;
  slider.addEventListener("input", () => {
    state.least = Math.round(slider.value * 10000);
    showScore();
    soon(() => { refresh(); if (dialog.open) showLarge(); });
  });
}
find("sort").addEventListener("change", (event) => { state.sort = event.target.value; refresh(); toTop(); });
find("query").addEventListener("input", (event) => { state.query = event.target.value.trim(); refresh(); toTop(); });
find("class-query").addEventListener("input", refresh);

grid.addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (card) openLarge(order.indexOf(Number(card.dataset.picture)));
});
grid.addEventListener("keydown", (event) => {
  const card = event.target.closest(".card");
  if (!card) return;
  const at = order.indexOf(Number(card.dataset.picture)), row = rows.findIndex(({ start, end }) => start <= at && at < end);
  const middle = places[at].left + places[at].width / 2;
  const nearest = (other) => {
    if (!other) return at;
    let best = other.start;
    for (let one = other.start; one < other.end; one++)
      if (Math.abs(places[one].left + places[one].width / 2 - middle) < Math.abs(places[best].left + places[best].width / 2 - middle)) best = one;
    return best;
  };
  const target = { ArrowLeft: at - 1, ArrowRight: at + 1, ArrowUp: nearest(rows[row - 1]), ArrowDown: nearest(rows[row + 1]), Home: 0, End: order.length - 1 }[event.key];
  if (target === undefined || !order.length) return;
  event.preventDefault();
  focusCard(Math.min(Math.max(target, 0), order.length - 1));
});

function focusCard(at) {
  if (!places[at]) return;
  const { top, height } = places[at], above = grid.getBoundingClientRect().top + scrollY;
  const start = above + top - toolbar.offsetHeight - GAP, end = above + top + height + CAPTION + GAP - innerHeight;
  if (scrollY > start) scrollTo(0, start);
  else if (scrollY < end) scrollTo(0, end);
  showCards();
  cards.get(order[at])?.focus({ preventScroll: true });
}

// --- The large view --------------------------------------------------------------------------------------------------

const dialog = find("large"), stage = find("stage"), largePhoto = stage.querySelector(".photo");
const largeImage = largePhoto.querySelector("img"), largeSvg = largePhoto.querySelector("svg");
let sequence = [], current = 0;

function openLarge(at) {
  sequence = order.slice(); // the sequence stays while the least score changes
  current = at;
  dialog.showModal();
  document.documentElement.style.overflow = "hidden";
  showLarge();
}

function move(by) {
  const target = current + by;
  if (target < 0 || target >= sequence.length) return;
  current = target;
  showLarge();
}

function loadOriginal(number) {
  const [, , , thumbnail, original] = PICTURES[number];
  largeImage.src = thumbnail || original || "data:,";
  if (!original) return;
  const image = new Image();
  image.src = original; // if the file has moved, or the browser does not read its format, the thumbnail stays
  image.decode().then(() => { if (sequence[current] === number) largeImage.src = original; }, () => {});
}

let pictureShown = -1;
function showLarge() {
  const number = sequence[current], [name, width, height, , original] = PICTURES[number];
  if (pictureShown !== number) {
    pictureShown = number;
    loadOriginal(number);
    const following = PICTURES[sequence[current + 1]];
    if (following?.[4]) new Image().src = following[4];
    find("panel").scrollTop = 0;
  }
  find("large-name").textContent = shortName(number);
  find("place").textContent = `${(current + 1).toLocaleString("en")} / ${sequence.length.toLocaleString("en")}`;
  find("previous").disabled = current === 0;
  find("next").disabled = current === sequence.length - 1;
  const scale = Math.min((stage.clientWidth - 16) / width, (stage.clientHeight - 16) / height, 4);
  const wide = width * scale, high = height * scale;
  largePhoto.style.cssText = `left:${(stage.clientWidth - wide) / 2}px;top:${(stage.clientHeight - high) / 2}px;width:${wide}px;height:${high}px`;
  largeImage.alt = name;
  const found = shownDetections(number);
  largeSvg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  largeSvg.replaceChildren();
  boxesOf(found, largeSvg);
  labelsOf(found, largeSvg, width, height, scale);
  const list = find("detections");
  list.replaceChildren();
  found.forEach((one, at) => {
    const item = element("div", "detection");
    item.setAttribute("role", "listitem");
    item.append(dot(one.label), element("span", "", one.name), element("span", "value", score(one.score)));
    item.addEventListener("pointerenter", () => pick(at));
    item.addEventListener("pointerleave", () => pick(-1));
    list.append(item);
  });
  const rest = PICTURES[number][5].length / STEP - found.length;
  find("more").textContent = (found.length ? "" : "Nothing found. ") + (rest ? `${found.length ? rest + " more" : many(rest, "detection")} ${state.chosen.size ? "of other classes or " : ""}below the least score` : "");
  const facts = find("facts");
  facts.replaceChildren();
  const file = element("dd");
  if (original) {
    const link = element("a", "", name);
    link.href = original;
    link.target = "_blank";
    file.append(link);
  } else file.textContent = name;
  facts.append(element("dt", "", "file"), file, element("dt", "", "size"), element("dd", "", `${width} × ${height} pixels`));
}

function pick(at) {
  largePhoto.classList.toggle("picks", at >= 0);
  const count = find("detections").children.length;
  largeSvg.querySelectorAll(":scope > g").forEach((group, place) => group.classList.toggle("picked", (place < count ? count - 1 - place : 2 * count - 1 - place) === at));
}

// Labels lie inside the picture, where they cover other labels least. Labels of higher scores are placed first.
const ruler = document.createElement("canvas").getContext("2d");
function labelsOf(found, svg, width, height, scale) {
  const size = 13 / scale, high = 19 / scale, margin = 5 / scale, taken = [], groups = [];
  ruler.font = '600 13px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif';
  for (const one of found) {
    const ending = ` ${score(one.score)}`;
    let name = one.name, text = name + ending;
    while (name && ruler.measureText(text).width / scale + 2 * margin > width) {
      name = name.slice(0, -1);
      text = `${name}…${ending}`;
    }
    const wide = ruler.measureText(text).width / scale + 2 * margin;
    const shared = (x, y) => taken.reduce((sum, [left, top, right, bottom]) =>
      sum + Math.max(0, Math.min(x + wide, right) - Math.max(x, left)) * Math.max(0, Math.min(y + high, bottom) - Math.max(y, top)), 0);
    let best = null;
    const right = one.x + one.width - wide, bottom = one.y + one.height;
    for (const [x, y] of [[one.x, one.y - high], [one.x, one.y], [right, one.y - high], [right, one.y], [one.x, bottom - high], [one.x, bottom], [right, bottom - high], [right, bottom]]) {
      const inX = Math.max(0, Math.min(x, width - wide)), inY = Math.max(0, Math.min(y, height - high));
      const cost = shared(inX, inY) + Math.abs(y - inY) * 1e-3;
      if (!best || cost < best.cost) best = { cost, x: inX, y: inY };
    }
    taken.push([best.x, best.y, best.x + wide, best.y + high]);
    const group = svgElement("g", { class: "label" });
    const words = svgElement("text", { x: best.x + margin, y: best.y + high * 0.72, fill: CLASSES[one.label].ink });
    words.style.fontSize = `${size}px`;
    words.textContent = text;
    group.append(svgElement("rect", { x: best.x, y: best.y, width: wide, height: high, rx: 3 / scale, style: `fill:${CLASSES[one.label].colour}` }), words);
    groups.push(group);
  }
  svg.append(...groups.reverse());
}

find("previous").addEventListener("click", () => move(-1));
find("next").addEventListener("click", () => move(1));
find("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === stage || event.target === dialog) dialog.close(); });
dialog.addEventListener("keydown", (event) => {
  if (event.target.type === "range" && event.key.startsWith("Arrow")) return; // the keys move the slider
  const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1, PageUp: -1, PageDown: 1 }[event.key];
  if (by) { event.preventDefault(); move(by); }
  if (event.key === "Home") move(-current);
  if (event.key === "End") move(sequence.length - 1 - current);
});
dialog.addEventListener("close", () => {
  document.documentElement.style.overflow = "";
  const at = order.indexOf(sequence[current]);
  if (at >= 0) focusCard(at);
});
let touched = null;
stage.addEventListener("touchstart", (event) => { touched = event.touches.length === 1 ? event.touches[0].clientX : null; }, { passive: true });
stage.addEventListener("touchend", (event) => {
  if (touched === null) return;
  const by = event.changedTouches[0].clientX - touched;
  if (Math.abs(by) > 50) move(by < 0 ? 1 : -1);
  touched = null;
}, { passive: true });

// --- Begin -----------------------------------------------------------------------------------------------------------

const toolbar = document.querySelector(".toolbar"), narrow = matchMedia("(max-width: 56rem)");
const failures = find("failures");
if (failures) document.querySelector(".columns").before(failures);
find("classes").open = !narrow.matches;
narrow.addEventListener("change", () => { find("classes").open = !narrow.matches; });
new ResizeObserver(() => document.documentElement.style.setProperty("--toolbar", `${toolbar.offsetHeight}px`)).observe(toolbar);
let lastWidth = 0;
new ResizeObserver(() => {
  if (grid.clientWidth !== lastWidth) { lastWidth = grid.clientWidth; layOut(); showCards(); }
}).observe(grid);
new ResizeObserver(() => { if (dialog.open) showLarge(); }).observe(stage);
addEventListener("scroll", () => requestAnimationFrame(showCards), { passive: true });
addEventListener("resize", showCards);
find("title").textContent = document.title = `Detections in ${many(PICTURES.length, "picture")}`;
makeClasses();
refresh();
