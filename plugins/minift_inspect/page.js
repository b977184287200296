"use strict";
// Fill the page from the record. Texts become text nodes only (textContent), never markup.
const facts = JSON.parse(document.getElementById("record").textContent);
const at = (id) => document.getElementById(id);
const make = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined && text !== null) element.textContent = text;
  if (name) element.className = name;
  return element;
};
const add = (parent, ...children) => { parent.append(...children); return parent; };
const percent = (x) => `${(100 * x).toFixed(0)} %`;
const short = (x) => (x === 0 ? "0" : Math.abs(x) >= 0.001 && Math.abs(x) < 1e5 ? String(Number(x.toPrecision(3))) : x.toExponential(1));
const count = (n) => n.toLocaleString("en");
const classes = facts.labels.length > 1;
const nameOf = (x) => (x === undefined || x === null ? "" : classes && Number.isInteger(x) && facts.labels[x] !== undefined ? facts.labels[x] : Array.isArray(x) ? x.join(" ") : short(x));
const here = facts.positions.map((i) => facts.tokens[facts.focus][i]);
const words = here.map((token) => token.token);

function header() {
  document.title = `Row ${facts.first + facts.focus} of ${facts.title}`;
  at("title").textContent = document.title;
  add(at("sizes"), add(make("div"), make("dt", "model"), make("dd", facts.model.class)));
  for (const [name, value] of Object.entries(facts.model.sizes)) add(at("sizes"), add(make("div"), make("dt", name), make("dd", count(value))));
}

function row() {
  for (const [name, value] of Object.entries(facts.raw[facts.focus])) {
    const label = ["label", "labels"].includes(name) && classes && Number.isInteger(value) ? ` (${nameOf(value)})` : "";
    add(at("raw"), make("dt", name), make("dd", value === null ? "None" : `${value}${label}`));
  }
  for (const token of here) {
    const box = add(make("span", null, `token${token.special ? " special" : ""}${token.type ? " second" : ""}`), make("b", token.token));
    add(at("tokens"), add(box, make("small", token.type === undefined ? token.id : `${token.id} · type ${token.type}`)));
  }
}

function padding() {
  const p = facts.padding;
  const lede = at("padding-lede");
  add(lede, `${p.rows} rows are padded to the longest, ${p.length} tokens: ${count(p.cells)} cells, of which ${count(p.tokens)} are tokens. `,
    make("strong", `${percent(p.saved)} of the block is padding, and nothing is computed for it. `),
    `Attention, which needs rows, sees ${p.blocks.length === 1 ? "one block" : `${p.blocks.length} blocks of rows of similar length`}: ${count(p.scores)} pairs of tokens a head instead of ${count(p.scores_padded)}.`);
  at("cells").setAttribute("aria-label", `${p.tokens} tokens and ${p.cells - p.tokens} cells of padding`);
  facts.tokens.forEach((tokens, i) => {
    const line = add(make("div", null, i === facts.focus ? "line here" : "line"), make("span", facts.first + i));
    for (const token of tokens) { const cell = make("i", null, token.mask ? "" : "pad"); cell.title = token.token; add(line, cell); }
    add(at("cells"), line);
  });
  for (const stage of facts.stages) add(at("stages").tBodies[0], add(make("tr"), make("td", stage.name), make("td", stage.shape, "shape"), make("td", stage.what, "note")));
}

// A table of shaded cells. Shades are shares of the largest value; numbers are in each cell.
function heat(table, rowNames, columnNames, values, low, high, show, title) {
  const n = columnNames.length;
  table.style.setProperty("--cell", n > 40 ? "1.05rem" : n > 26 ? "1.35rem" : "1.75rem");
  const head = add(make("tr"), make("th"));
  columnNames.forEach((name) => { const th = add(make("th"), make("span", name)); th.scope = "col"; add(head, th); });
  const body = make("tbody");
  values.forEach((line, i) => {
    const th = make("th", rowNames[i]); th.scope = "row"; th.title = rowNames[i];
    const tr = add(make("tr"), th);
    line.forEach((value, j) => {
      const shade = Math.max(0, Math.min(1, (value - low) / (high - low || 1)));
      const cell = make("td", show(value), shade > 0.62 ? "strong" : "");
      cell.style.setProperty("--a", (0.04 + 0.96 * shade ** 0.8).toFixed(3));
      cell.title = title(i, j, value);
      add(tr, cell);
    });
    add(body, tr);
  });
  table.replaceChildren(add(make("thead"), head), body);
}

function norms() {
  const flat = facts.norms.flat();
  const names = facts.norms.map((_, i) => (i ? `layer ${i}` : "embeddings"));
  heat(at("norms"), names.slice().reverse(), words, facts.norms.slice().reverse(), Math.min(...flat), Math.max(...flat),
    (x) => x.toFixed(0), (i, j, x) => `${words[j]}: ${x.toFixed(3)}`);
}

function attention() {
  const layers = facts.attention.length, heads = layers ? facts.attention[0].length : 0;
  for (let i = 0; i < layers; i++) add(at("layer"), new Option(i + 1, i));
  for (let i = 0; i < heads; i++) add(at("head"), new Option(i + 1, i));
  add(at("head"), new Option("mean of all", "mean"));
  const draw = () => {
    const all = facts.attention[at("layer").value], head = at("head").value;
    const map = head === "mean" ? all[0].map((line, i) => line.map((_, j) => all.reduce((sum, one) => sum + one[i][j], 0) / all.length)) : all[head];
    heat(at("map"), words, words, map, 0, Math.max(...map.flat()), (x) => (x >= 0.1 ? `.${Math.round(x * 100) === 100 ? "99" : String(Math.round(x * 100)).padStart(2, "0")}` : ""),
      (i, j, x) => `${words[i]} looks at ${words[j]}: ${x.toFixed(4)}`);
    const mean = words.map((_, j) => map.reduce((sum, line) => sum + line[j], 0) / map.length);
    const most = mean.indexOf(Math.max(...mean));
    at("looks").textContent = `This one looks most at ${words[most]} (position ${facts.positions[most]}), with ${percent(mean[most])} of its attention on average.`;
  };
  at("layer").onchange = at("head").onchange = draw;
  if (layers) { at("layer").value = layers - 1; draw(); }
}

function pulls() {
  const p = facts.pulls, target = classes ? nameOf(p.target) : "a larger number";
  add(at("pulls-lede"), "Integrated gradients: how much each token moved the logit, from a row of padding to this one. Blue pulls towards ", make("strong", target),
    `, orange away from it. They add up to ${short(p.pulls.reduce((a, b) => a + b, 0))}: the logit is ${short(p.logit)}, and ${short(p.baseline)} without the tokens.`);
  const largest = Math.max(...p.pulls.map(Math.abs)) || 1;
  p.pulls.forEach((pull, i) => {
    const bar = make("i", null, pull < 0 ? "away" : "towards");
    bar.style.width = `${(50 * Math.abs(pull)) / largest}%`;
    add(at("bars"), make("b", words[i]), add(make("div", null, "track"), bar), make("span", `${pull < 0 ? "−" : "+"}${Math.abs(pull).toFixed(3)}`));
  });
}

function losses() {
  facts.rows.forEach((one, i) => {
    const right = one.label === undefined || !classes || one.label === one.prediction;
    const text = make("td", null, "text");
    facts.columns.forEach((column, j) => { if (j) add(text, make("br")); add(text, String(facts.raw[i][column])); });
    add(at("rows").tBodies[0], add(make("tr", null, i === facts.focus ? "here" : ""), make("td", facts.first + i), text, make("td", nameOf(one.label)),
      make("td", nameOf(one.prediction), right ? "" : "wrong"), make("td", classes ? percent(one.scores[one.prediction]) : "", "number"),
      make("td", one.loss === undefined || one.loss === null ? "" : one.loss.toFixed(3), "number")));
  });
}

function update() {
  const u = facts.update;
  if (!u) { at("update").hidden = true; return; }
  const most = u.layers.reduce((a, b) => (b.share > a.share ? b : a));
  add(at("update-lede"), `The mean loss of the batch is ${short(u.loss)}, and the norm of its gradient ${short(u.norm)}`,
    u.clip < 1 ? `, which clipping brings to ${short(u.norm * u.clip)}. ` : ", which clipping leaves as it is. ",
    `AdamW's first step moves each weight by about the learning rate, ${u.rate}, whatever the size of its gradient. `,
    make("strong", `Relative to its weights, ${most.name === "head" ? "the head" : most.name} learns most.`), " All numbers are L2 norms.");
  const largest = Math.max(...u.layers.map((one) => one.share)) || 1;
  for (const one of u.layers) {
    const bar = make("i"); bar.style.setProperty("--share", one.share / largest);
    add(at("layers").tBodies[0], add(make("tr"), make("td", one.name), make("td", short(one.gradient), "number"), make("td", short(one.weight), "number"),
      make("td", short(one.update), "number"), add(make("td"), add(make("div", null, "share"), bar, make("span", short(one.share))))));
  }
  const middle = u.schedule.reduce((a, b) => (Math.abs(b[0] - 50) < Math.abs(a[0] - 50) ? b : a))[1];
  at("schedule-lede").textContent = `The schedule "${u.name}" multiplies every update. ${u.warmup ? `It rises for ${percent(u.warmup)} of the run. ` : ""}Half-way the updates above are ${percent(middle)} as large.`;
  const ns = "http://www.w3.org/2000/svg";
  const shape = (tag, attributes, text) => { const e = document.createElementNS(ns, tag); for (const k in attributes) e.setAttribute(k, attributes[k]); if (text) e.textContent = text; return e; };
  const svg = shape("svg", { viewBox: "0 0 640 170", role: "img", "aria-label": `learning rate over the run: ${u.name}` });
  const x = (s) => 60 + 5.6 * s, y = (f) => 130 - 115 * f;
  for (const f of [0, 0.5, 1]) add(svg, shape("line", { class: "axis", x1: 60, x2: 620, y1: y(f), y2: y(f) }), shape("text", { x: 52, y: y(f) + 4, "text-anchor": "end" }, short(u.rate * f)));
  for (const s of [0, 25, 50, 75, 100]) add(svg, shape("text", { x: x(s), y: 152, "text-anchor": "middle" }, `${s} %`));
  add(svg, shape("polyline", { class: "curve", points: u.schedule.map(([s, f]) => `${x(s)},${y(f)}`).join(" ") }));
  add(at("schedule"), svg);
}

header(); row(); padding(); norms(); attention(); pulls(); losses(); update();
