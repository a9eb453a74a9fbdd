// A pad of FINE x FINE dots for each pixel; a pixel is the mean of its dots, as scans of digits are made small.
const FINE = 4;

function drawingPad(canvas, changed) {
  const [, height, width] = facts.shape, wide = width * FINE, high = height * FINE;
  let dots = new Uint8Array(wide * high), last = null;
  const pen = { x: wide / 2, y: high / 2, down: false };
  // Strokes as thick as those of the data: about an eighth of the image.
  const thickness = Math.max(2, wide / 14);

  function dab(x, y) {
    for (let row = Math.floor(y - thickness); row <= y + thickness; row++) {
      for (let column = Math.floor(x - thickness); column <= x + thickness; column++) {
        const inside = row >= 0 && row < high && column >= 0 && column < wide;
        if (inside && (row - y) ** 2 + (column - x) ** 2 <= thickness ** 2) dots[row * wide + column] = 1;
      }
    }
  }

  function stroke(from, to) {
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y)));
    for (let i = 0; i <= steps; i++) dab(from.x + (to.x - from.x) * i / steps, from.y + (to.y - from.y) * i / steps);
    show();
    changed();
  }

  function show() {
    canvas.width = wide;
    canvas.height = high;
    const context = canvas.getContext("2d"), image = context.createImageData(wide, high);
    dots.forEach((dot, i) => image.data.set([255 * dot, 255 * dot, 255 * dot, 255], 4 * i));
    context.putImageData(image, 0, 0);
    if (document.activeElement === canvas && canvas.matches(":focus-visible")) {
      context.fillStyle = pen.down ? "#ff5a4d" : "#4d9dff";
      context.fillRect(pen.x - 1, pen.y - 1, 3, 3);
    }
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width * wide, y: (event.clientY - box.top) / box.height * high };
  }

  canvas.addEventListener("pointerdown", event => {
    canvas.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(last, last);
  });
  canvas.addEventListener("pointermove", event => {
    if (!last) return;
    const here = place(event);
    stroke(last, here);
    last = here;
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { last = null; });
  canvas.addEventListener("keydown", event => {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!move && event.key !== " ") return;
    event.preventDefault();
    const before = { x: pen.x, y: pen.y };
    if (move) {
      pen.x = Math.min(wide - 1, Math.max(0, pen.x + move[0] * FINE / 2));
      pen.y = Math.min(high - 1, Math.max(0, pen.y + move[1] * FINE / 2));
    } else {
      pen.down = !pen.down;
    }
    if (pen.down) stroke(before, pen);
    else show();
  });
  for (const name of ["focus", "blur"]) canvas.addEventListener(name, show);
  show();
  return {
    clear() {
      dots = new Uint8Array(wide * high);
      pen.down = false;
      show();
      changed();
    },
    pixels() {
      const mean = new Uint8Array(width * height);
      for (let row = 0; row < height; row++) {
        for (let column = 0; column < width; column++) {
          let sum = 0;
          for (let i = 0; i < FINE * FINE; i++) {
            sum += dots[(row * FINE + Math.floor(i / FINE)) * wide + column * FINE + i % FINE];
          }
          mean[row * width + column] = Math.round(255 * sum / FINE ** 2);
        }
      }
      return mean;
    },
  };
}
