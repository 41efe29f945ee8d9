// h("button.primary", { onclick }, "text", child): one element. Text is always text, never markup.
export function h(spec, props = {}, ...children) {
  const [tag, ...classes] = spec.split(".");
  const node = document.createElement(tag || "div");
  if (classes.length) node.className = classes.join(" ");
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node[name] = value;
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return node;
}

export function hue(text) { let n = 0; for (const c of text) n = (n * 31 + c.codePointAt(0)) % 360; return n; }

export function avatar(name, id) {
  const letters = (name ?? "?").split(/\s+/).slice(0, 2).map((w) => [...w][0] ?? "").join("").toUpperCase() || "?";
  return h("span.avatar", { style: `--hue:${hue(id)}`, "aria-hidden": "true" }, letters);
}

export function toast(text, action) {
  const node = h("div.toast", {}, h("span", {}, text));
  if (action) node.append(h("button", { onclick: () => { node.remove(); action.run(); } }, action.label));
  document.getElementById("toasts").append(node);
  setTimeout(() => node.remove(), 6000);
}

const PATHS = {
  out: "M10 4H5a1 1 0 0 0-1 1v10a1 1 0 0 0 1 1h5M13 6.5 16.5 10 13 13.5M16 10H8",
  theme: "M10 3.5a6.5 6.5 0 1 0 0 13zM10 3.5a6.5 6.5 0 0 1 0 13",
};

export function icon(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 20 20", width: 18, height: 18, "aria-hidden": "true" })) svg.setAttribute(key, value);
  for (const [key, value] of Object.entries({ d: PATHS[name], fill: "none", stroke: "currentColor", "stroke-width": 1.6, "stroke-linecap": "round", "stroke-linejoin": "round" })) path.setAttribute(key, value);
  svg.append(path);
  return svg;
}
