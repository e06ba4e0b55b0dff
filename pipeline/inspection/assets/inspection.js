(() => {
  const { items } = JSON.parse(document.getElementById("data").textContent);
  let visible = [], zoomed = null;

  function fill(svg, item, withImage) {
    svg.replaceChildren();
    if (!item.image) {
      svg.setAttribute("viewBox", "0 0 400 400");
      const text = draw("text", { x: 200, y: 205, "text-anchor": "middle", class: "problem" });
      text.textContent = "no picture";
      svg.append(text);
      return;
    }
    svg.setAttribute("viewBox", `0 0 ${item.width} ${item.height}`);
    const image = draw("image", { width: item.width, height: item.height, preserveAspectRatio: "none" });
    if (withImage) image.setAttribute("href", item.image);
    svg.append(image);
    item.masks.forEach((mask, number) => {
      const group = draw("g", { "data-mask": number });
      group.append(draw("path", { d: mask.path, class: "mask-fill", fill: mask.colour }));
      group.append(draw("path", { d: mask.path, class: "halo" }));
      group.append(draw("path", { d: mask.path, class: `mask-line${mask.crowd ? " crowd" : ""}`, stroke: mask.colour }));
      svg.append(group);
    });
  }

  // ---- cards; an image is decoded only when its card comes near
  const lazy = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      const image = entry.target.querySelector("image");
      if (image) image.setAttribute("href", items[Number(entry.target.dataset.item)].image);
      lazy.unobserve(entry.target);
    }
  }, { rootMargin: "600px" });

  function card(item, number) {
    const svg = draw("svg", { "aria-hidden": "true", preserveAspectRatio: "xMidYMid meet" });
    fill(svg, item, false);
    const count = item.masks.length + item.lost.length;
    const open = make("button", { type: "button", class: "open", "aria-label": `Zoom ${item.uri}, ${count} masks` }, svg);
    open.addEventListener("click", () => zoom(item));
    const what = make("div", { class: "what" },
      make("p", { class: "name" }, item.uri),
      make("p", { class: "figures" }, make("span", {}, item.size), make("span", {}, `${count} ${count === 1 ? "mask" : "masks"}`)),
      ...item.notes.map((note) => make("p", { class: item.failed ? "bad" : "figures" }, note)));
    const element = make("li", { class: "card" }, open, what);
    element.dataset.item = number;
    lazy.observe(element);
    return element;
  }
  const cards = new Map(items.map((item, number) => [item, card(item, number)]));

  // ---- filters
  function fits(item) {
    const category = by("by-category").value;
    return (!category || item.masks.some((mask) => mask.category === category)) && (!by("only-odd").checked || item.notes.length > 0);
  }
  function show() {
    visible = items.filter(fits);
    by("cards").replaceChildren(...visible.map((item) => cards.get(item)));
    by("shown").textContent = `${visible.length} of ${items.length}`;
    by("nothing").hidden = visible.length > 0;
  }
  const categories = [...new Set(items.flatMap((item) => item.masks.map((mask) => mask.category)))].sort();
  by("by-category").append(...categories.map((name) => make("option", { value: name }, name)));
  for (const id of ["by-category", "only-odd"]) by(id).addEventListener("input", show);
  for (const kind of ["fill", "line"]) {
    by(`see-${kind}`).addEventListener("change", (event) => document.body.classList.toggle(`no-${kind}`, !event.target.checked));
  }

  // ---- zoom
  const stage = by("stage"), dialog = by("zoom");
  const { fit, scale } = viewer(stage, () => (zoomed.image ? [zoomed.width, zoomed.height] : [400, 400]), 32);
  function only(number) {
    for (const group of stage.querySelectorAll("g")) group.classList.toggle("dim", number !== null && group.dataset.mask !== String(number));
  }
  function listed(mask, number) {
    const dot = draw("svg", { width: 11, height: 11, viewBox: "0 0 11 11", "aria-hidden": "true" });
    dot.append(draw("rect", { width: 11, height: 11, rx: 2, fill: mask.colour }));
    const said = [mask.crowd ? "crowd" : "", mask.problem].filter(Boolean).join(", ");
    const button = make("button", { type: "button" }, dot, ` ${mask.category} · ${mask.id}${said ? ` · ${said}` : ""}`);
    for (const event of ["pointerenter", "focus"]) button.addEventListener(event, () => only(number));
    for (const event of ["pointerleave", "blur"]) button.addEventListener(event, () => only(null));
    return make("li", {}, button);
  }
  function zoom(item) {
    zoomed = item;
    by("zoom-title").textContent = item.uri;
    fill(stage, item, true);
    fit();
    const said = [...item.notes, ...item.lost.map((text) => `cannot be drawn: ${text}`)];
    by("zoom-notes").replaceChildren(...said.map((text) => make("li", { class: item.failed ? "bad" : "" }, text)));
    by("zoom-masks").replaceChildren(...item.masks.map(listed));
    if (!dialog.open) dialog.showModal();
  }
  function step(by_) {
    const item = visible[(visible.indexOf(zoomed) + by_ + visible.length) % visible.length];
    if (item) zoom(item);
  }
  by("previous").addEventListener("click", () => step(-1));
  by("next").addEventListener("click", () => step(1));
  by("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    const last = zoomed;
    zoomed = null;
    if (last && cards.get(last).isConnected) cards.get(last).querySelector(".open").focus();
  });

  // ---- keys
  const focused = () => document.activeElement && document.activeElement.closest(".card");
  function move(by_) {
    const list = [...by("cards").children];
    const from = list.indexOf(focused());
    const to = list[from < 0 ? 0 : Math.min(Math.max(from + by_, 0), list.length - 1)];
    if (to) to.querySelector(".open").focus();
  }
  function masks() {
    const on = by("see-fill").checked || by("see-line").checked;
    for (const kind of ["fill", "line"]) if (by(`see-${kind}`).checked === on) by(`see-${kind}`).click();
  }
  function onKey(key) {
    const arrows = { arrowleft: -1, arrowright: 1 };
    if (key in arrows) { zoomed ? step(arrows[key]) : move(arrows[key]); return true; }
    if (key === "m") { masks(); return true; }
    const actions = { "+": () => scale(1.5), "=": () => scale(1.5), "-": () => scale(1 / 1.5), 0: fit };
    if (!zoomed || !(key in actions)) return false;
    actions[key]();
    return true;
  }
  document.addEventListener("keydown", (event) => {
    const inField = event.target.closest && event.target.closest("select, .scroll");
    if (inField || event.ctrlKey || event.metaKey || event.altKey) return;
    if (onKey(event.key.toLowerCase())) event.preventDefault();
  });

  show();
})();
