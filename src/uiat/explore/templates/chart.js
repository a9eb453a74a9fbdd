// The probability of the class over epsilon, a line for each model, of the positions that are known.
function drawCurve(answers, position, label) {
  const width = Math.max(280, byId("curve").clientWidth);  // one unit is a pixel, so that text has one size
  const box = { left: 44, right: 14, top: 10, bottom: 34, width, height: 230 };
  const across = p => box.left + (p + facts.farthest) / (2 * facts.farthest) * (box.width - box.left - box.right);
  const up = share => box.height - box.bottom - share * (box.height - box.top - box.bottom);
  const svg = drawn("svg", { viewBox: `0 0 ${box.width} ${box.height}`, role: "img" });
  const known = [...answers.keys()].sort((a, b) => a - b);
  svg.setAttribute("aria-label", `Probability of ${facts.classes[label]} over epsilon, at ${known.length} positions`);
  for (const share of [0, 0.5, 1]) {
    svg.append(drawn("line", { class: "grid", x1: box.left, x2: box.width - box.right, y1: up(share), y2: up(share) }));
    svg.append(drawn("text", { x: box.left - 6, y: up(share) + 4, "text-anchor": "end" }, `${100 * share} %`));
  }
  for (let mark = -2; mark <= 2; mark++) {
    const p = mark * facts.perRadius, x = across(p);
    svg.append(drawn("line", { class: mark ? "grid" : "zero", x1: x, x2: x, y1: up(0), y2: up(1) }));
    const anchor = mark === -2 ? "start" : mark === 2 ? "end" : "middle";
    svg.append(drawn("text", { x, y: box.height - 12, "text-anchor": anchor }, facts.radii[p + facts.farthest]));
  }
  svg.append(drawn("line", { class: "here", x1: across(position), x2: across(position), y1: up(0), y2: up(1) }));
  facts.models.forEach((name, model) => {
    const points = known.map(p => [across(p), up(answers.get(p).probabilities[model][label])]);
    const line = points.map(point => point.map(v => v.toFixed(1)).join(",")).join(" ");
    svg.append(drawn("polyline", { class: `t${model} d${model % 4}`, points: line }));
    known.forEach((p, i) => {
      if (p !== position && known.length > facts.farthest) return;
      const radius = p === position ? 5 : 2.5;
      svg.append(drawn("circle", { class: `dot t${model}`, cx: points[i][0], cy: points[i][1], r: radius }));
    });
  });
  byId("curve").replaceChildren(byId("curve-says"), legend(), svg);
  byId("curve-says").textContent = `Probability of “${facts.classes[label]}” as epsilon moves`;
}

function legend() {
  const list = element("ul", undefined, "legend");
  facts.models.forEach((name, model) => {
    const sample = drawn("svg", { viewBox: "0 0 32 8", "aria-hidden": "true" });
    sample.append(drawn("polyline", { class: `t${model} d${model % 4}`, points: "0,4 32,4" }));
    const entry = element("li");
    entry.append(sample, name);
    list.append(entry);
  });
  return list;
}
