// Images are flat arrays of bytes, channel after channel, row after row.
const facts = JSON.parse(document.getElementById("data").textContent);
const byId = name => document.getElementById(name);

function bytesOf(text) {
  return Uint8Array.from(atob(text), character => character.charCodeAt(0));
}

function textOf(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

// Put an image on a canvas: one or three channels as they are, any other number as the mean over them.
function paint(canvas, values) {
  const [channels, height, width] = facts.shape, size = height * width;
  const scale = Math.max(1, Math.round(256 / width));
  canvas.width = width * scale;
  canvas.height = height * scale;
  const small = document.createElement("canvas");
  small.width = width;
  small.height = height;
  const pixels = new ImageData(width, height);
  for (let i = 0; i < size; i++) {
    for (let c = 0; c < 3; c++) {
      let value = 0;
      if (channels === 3) value = values[c * size + i];
      else for (let k = 0; k < channels; k++) value += values[k * size + i] / channels;
      pixels.data[4 * i + c] = value;
    }
    pixels.data[4 * i + 3] = 255;
  }
  small.getContext("2d").putImageData(pixels, 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(small, 0, 0, canvas.width, canvas.height);
}

// What was added, magnified to the slider's reach: grey is no change.
function difference(moved, natural) {
  const factor = 0.5 / facts.span;
  return Array.from(moved, (value, i) => Math.min(255, Math.max(0, 127.5 + factor * (value - natural[i]))));
}

function element(kind, text, style) {
  const made = document.createElement(kind);
  if (text !== undefined) made.textContent = text;
  if (style) made.className = style;
  return made;
}

function drawn(kind, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
