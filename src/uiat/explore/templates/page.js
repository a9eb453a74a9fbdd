const MOST_BARS = 10;  // classes shown of a model that knows more
const QUICK = 250;  // milliseconds: models that answer faster are asked ahead, to draw the whole curve
const state = { image: 0, source: 0, label: facts.images[0].label, position: 0 };
let answers = new Map();  // by position, of the image, source and class that are chosen
let asking = null, pad = null, saidLast = 0;

const isDrawing = () => state.image === null;
const natural = () => isDrawing() ? pad.pixels() : bytesOf(facts.images[state.image].pixels);
const epsilonText = position => facts.radii[position + facts.farthest];
const percent = share => `${Math.round(100 * share)} %`;

// Of the saved page: the answer is in the file. A universal perturbation is added here, as the package adds it.
function savedAnswer(position) {
  const image = facts.images[state.image], source = facts.sources[state.source], p = position + facts.farthest;
  const held = source.kind === "pgd" ? image.pgd[state.source][p] : image.universal[state.source][state.label][p];
  const shares = bytesOf(held.probabilities), count = facts.classes.length;
  const probabilities = facts.models.map((_, m) => Array.from(shares.subarray(m * count, (m + 1) * count), v => v / 255));
  if (held.pixels) return { pixels: bytesOf(held.pixels), probabilities };
  const z = bytesOf(source.z[state.label]), factor = -source.perPosition * position * source.unit;
  const moved = natural().map((value, i) => Math.min(255, Math.max(0, Math.round(value + factor * (z[i] - 128)))));
  return { pixels: moved, probabilities };
}

async function askServer(position) {
  const { source, label } = state;
  const what = isDrawing() ? { drawn: textOf(natural()) } : { image: state.image };
  const reply = await fetch("/answer", {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Uiat-Token": facts.token },
    body: JSON.stringify({ source, label, position, ...what }),
  }).catch(() => { throw new Error("the server does not answer: is `uiat explore` still running?"); });
  const answer = await reply.json().catch(() => ({ error: `the server answered ${reply.status}` }));
  if (answer.error) throw new Error(answer.error);
  return { pixels: bytesOf(answer.pixels), probabilities: answer.probabilities };
}

// The position that is still to be asked: where the slider stands, then those nearest to it.
function nextPosition(quick) {
  if (!answers.has(state.position)) return state.position;
  if (!quick) return null;
  const all = Array.from({ length: 2 * facts.farthest + 1 }, (_, i) => i - facts.farthest).filter(p => !answers.has(p));
  all.sort((a, b) => Math.abs(a - state.position) - Math.abs(b - state.position));
  return all.length ? all[0] : null;
}

// One question at a time: what was asked before the last change is thrown away.
async function ask() {
  if (asking) return;
  asking = true;
  let quick = false, position;
  try {
    while ((position = nextPosition(quick)) !== null) {
      const asked = answers, began = performance.now();
      const answer = facts.form === "saved" ? savedAnswer(position) : await askServer(position);
      quick = performance.now() - began < QUICK;
      asked.set(position, answer);
      if (asked === answers) show();
    }
    byId("error").hidden = true;
  } catch (fault) {
    byId("error").textContent = fault.message;
    byId("error").hidden = false;
  } finally {
    asking = null;
  }
}

function changed() {
  answers = new Map();
  showChoice();
  ask();
}

function moved() {
  state.position = Number(byId("epsilon").value);
  show();
  ask();
}

function showChoice() {
  const source = facts.sources[state.source], locked = facts.form === "saved" && source.kind === "pgd";
  if (locked) state.label = facts.images[state.image].label;
  byId("label").disabled = locked;
  byId("label").value = state.label;
  byId("source").value = state.source;
  byId("drawing").hidden = !isDrawing();
  byId("note").textContent = locked ? "In this saved page an attack moves each image away from its own class."
    : source.kind === "pgd" ? `${facts.steps} steps of epsilon / 4 from the image itself; below 0 they lower the loss.`
    : "One perturbation for all images of the class, scaled: it is added below 0 and taken away above.";
  const shown = natural();
  paint(byId("natural"), shown);
  const name = isDrawing() ? "your drawing" : `a test image of ${facts.classes[facts.images[state.image].label]}`;
  byId("natural").setAttribute("aria-label", `The image: ${name}`);
  byId("natural-says").textContent = name;
  show();
}

function show() {
  const text = epsilonText(state.position), kind = state.position < 0 ? "inverse" : state.position > 0 ? "adversarial" : "the image itself";
  byId("shown").textContent = `${text}, ${kind}`;
  byId("epsilon").setAttribute("aria-valuetext", `${text}, ${kind}`);
  const answer = answers.get(state.position);
  document.body.classList.toggle("waiting", !answer);
  if (!answer) return;
  paint(byId("added"), difference(answer.pixels, natural()));
  paint(byId("moved"), answer.pixels);
  byId("added").setAttribute("aria-label", `The perturbation at epsilon ${text}; grey is no change`);
  byId("added-says").textContent = `black −${facts.spanText}, white +${facts.spanText}`;
  byId("moved").setAttribute("aria-label", `The image with the perturbation, ${kind}`);
  byId("moved-says").textContent = kind;
  facts.models.forEach((_, model) => showModel(model, answer.probabilities[model]));
  drawCurve(answers, state.position, state.label);
  speak(text, answer);
}

// To a screen reader, and no more often than it can speak.
function speak(text, answer) {
  clearTimeout(saidLast);
  saidLast = setTimeout(() => {
    const said = facts.models.map((name, m) => {
      const best = answer.probabilities[m].indexOf(Math.max(...answer.probabilities[m]));
      return `${name}: ${facts.classes[best]}, ${percent(answer.probabilities[m][best])}`;
    });
    byId("says").textContent = `Epsilon ${text}. ${said.join(". ")}.`;
  }, 600);
}

function showModel(model, shares) {
  const card = byId("models").children[model], list = card.querySelector("ul");
  const best = shares.indexOf(Math.max(...shares)), truth = isDrawing() ? null : facts.images[state.image].label;
  const verdict = card.querySelector("p");
  verdict.textContent = truth === null ? `says ${facts.classes[best]}, ${percent(shares[best])}`
    : `${best === truth ? "✓ right" : "✗ wrong"}: says ${facts.classes[best]}, ${percent(shares[best])}`;
  verdict.className = truth === null ? "" : best === truth ? "right" : "wrong";
  let rows = shares.map((_, k) => k);
  if (rows.length > MOST_BARS) {
    rows = rows.filter(k => k !== state.label).sort((a, b) => shares[b] - shares[a]).slice(0, MOST_BARS - 1);
    rows.unshift(state.label);
  }
  while (list.children.length < rows.length) list.append(makeBar());
  rows.forEach((k, i) => {
    const row = list.children[i];
    row.className = k === state.label ? "true" : "";
    row.querySelector(".name").textContent = facts.classes[k];
    row.querySelector(".name").title = facts.classes[k];
    row.querySelector("i").style.width = `${100 * shares[k]}%`;
    row.querySelector(".percent").textContent = percent(shares[k]);
  });
}

function makeBar() {
  const row = element("li"), bar = element("span", undefined, "bar");
  bar.setAttribute("aria-hidden", "true");
  bar.append(element("i"));
  row.append(element("span", "", "name"), bar, element("span", "", "percent"));
  return row;
}

function addThumb(value, shown, spoken) {
  const label = element("label", undefined, "thumb"), input = element("input");
  input.type = "radio";
  input.name = "image";
  input.value = value;
  input.checked = value === 0;
  input.setAttribute("aria-label", spoken);
  label.title = spoken;
  label.append(input, shown);
  input.addEventListener("change", () => {
    state.image = value;
    if (value !== null) state.label = facts.images[value].label;
    changed();
  });
  byId("gallery").append(label);
}

function build() {
  byId("lead").textContent = "Drag epsilon: below 0 the image moves towards its class and models grow surer (inverse); " +
    `above 0 it moves away and they go wrong (adversarial). Threat model: ${facts.threat}. The chosen class is bold.`;
  if (facts.form === "live" && facts.shape[0] === 1) {
    pad = drawingPad(byId("pad"), changed);
    addThumb(null, element("span", "Draw", "word"), "Draw an image yourself");
    byId("clear").addEventListener("click", () => pad.clear());
  }
  facts.images.forEach((image, i) => {
    const canvas = element("canvas");
    paint(canvas, bytesOf(image.pixels));
    addThumb(i, canvas, `Test image ${i + 1}, ${facts.classes[image.label]}`);
  });
  facts.sources.forEach((source, i) => byId("source").append(new Option(source.text, i)));
  facts.classes.forEach((name, k) => byId("label").append(new Option(name, k)));
  const short = facts.classes.every(name => name.length < 3);
  facts.models.forEach((name, model) => {
    const card = element("section", undefined, `model t${model}${short ? " short" : ""}`);
    card.append(element("h3", name), element("p"), element("ul", undefined, "bars"));
    card.setAttribute("aria-label", `Probabilities of ${name}`);
    byId("models").append(card);
  });
  const slider = byId("epsilon");
  Object.assign(slider, { min: -facts.farthest, max: facts.farthest, value: 0 });
  for (const [mark, word] of [[-2, ""], [-1, "inverse"], [0, "image"], [1, "adversarial"], [2, ""]]) {
    const place = element("span");
    place.append(element("b", epsilonText(mark * facts.perRadius)), word);
    byId("marks").append(place);
  }
  slider.addEventListener("input", moved);
  addEventListener("resize", () => {
    if (answers.has(state.position)) drawCurve(answers, state.position, state.label);
  });
  for (const name of ["source", "label"]) {
    byId(name).addEventListener("change", event => {
      state[name] = Number(event.target.value);
      changed();
    });
  }
  byId("footer").textContent = `Images: ${facts.data}. ` + (facts.form === "saved"
    ? "A saved page: every answer is in the file. uiat explore RUN answers on any of these images, and on your own drawing."
    : "Served by uiat explore to this machine alone.");
}

build();
changed();
