(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const VERDICTS = [["better", "b", "refined is better"], ["worse", "w", "refined is worse"], ["reject", "r", "reject both"]];
  const place = `relabel-verdicts:${data.output}:${data.fingerprint}`;
  const items = data.items;
  const byId = new Map(items.map((item) => [item.id, item]));
  const verdicts = new Map(Object.entries(data.verdicts).filter(([id]) => byId.has(id)));
  let stratum = "", visible = [], zoomed = null;

  // Verdicts survive a reload where the browser lets a file keep something.
  try {
    for (const [id, [digest, verdict]] of Object.entries(JSON.parse(localStorage.getItem(place) || "{}"))) {
      if (byId.has(id) && byId.get(id).digest === digest) verdict ? verdicts.set(id, verdict) : verdicts.delete(id);
    }
  } catch { /* no storage: the page still works */ }

  function remember() {
    const kept = {};
    for (const item of items) {
      const verdict = verdicts.get(item.id) || null;
      if (verdict !== (data.verdicts[item.id] || null)) kept[item.id] = [item.digest, verdict];
    }
    try { localStorage.setItem(place, JSON.stringify(kept)); } catch { /* as above */ }
  }

  const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));
  const gain = (item) => (item.quality_refined === null || item.quality_coarse === null ? null : item.quality_coarse - item.quality_refined);
  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
  const named = (item) => item.category || item.source_mask_id || item.id;

  function fill(svg, item, withImage) {
    svg.replaceChildren();
    if (!item.image) {
      svg.setAttribute("viewBox", "0 0 400 400");
      const text = draw("text", { x: 200, y: 205, "text-anchor": "middle", class: "problem" });
      text.textContent = item.problem || "no picture";
      svg.append(text);
      return;
    }
    svg.setAttribute("viewBox", `0 0 ${item.width} ${item.height}`);
    const image = draw("image", { width: item.width, height: item.height, preserveAspectRatio: "none" });
    if (withImage) image.setAttribute("href", item.image);
    svg.append(image);
    for (const kind of ["coarse", "refined"]) {
      if (!item[kind]) continue;
      svg.append(draw("path", { d: item[kind], class: `halo of-${kind}` }));
      svg.append(draw("path", { d: item[kind], class: `${kind}-line of-${kind}` }));
    }
  }

  // ---- cards; an image is decoded only when its card comes near
  const lazy = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      const item = byId.get(entry.target.dataset.id);
      const image = entry.target.querySelector("image");
      if (image) image.setAttribute("href", item.image);
      lazy.unobserve(entry.target);
    }
  }, { rootMargin: "600px" });

  function judgeButtons(group, item, title) {
    group.replaceChildren();
    for (const [verdict, key, meaning] of VERDICTS) {
      const button = make("button", { type: "button", class: verdict, "aria-pressed": "false", title: `${meaning} (${key.toUpperCase()})` }, verdict);
      button.setAttribute("aria-label", `${verdict}: ${meaning}${title ? `, ${title}` : ""}`);
      button.addEventListener("click", () => judge(item, verdict));
      group.append(button);
    }
    press(group, item);
  }
  function press(group, item) {
    for (const button of group.children) button.setAttribute("aria-pressed", String(verdicts.get(item.id) === button.className));
  }

  function card(item) {
    const svg = draw("svg", { "aria-hidden": "true", preserveAspectRatio: "xMidYMid meet" });
    fill(svg, item, false);
    const label = `Zoom ${named(item)}, ${data.decisions[item.decision] || item.decision}, quality ${number(item.quality)}`;
    const open = make("button", { type: "button", class: "open", "aria-label": label }, svg);
    open.addEventListener("click", () => zoom(item));
    const group = make("div", { class: "judge", role: "group", "aria-label": `Verdict on ${named(item)}` });
    judgeButtons(group, item, named(item));
    for (const button of group.children) button.tabIndex = -1;
    const what = make("div", { class: "what" },
      make("p", { class: "name" }, named(item)),
      make("p", { class: `tag ${item.decision.replace(/[^a-z_]/g, "")}` }, data.decisions[item.decision] || item.decision),
      make("p", { class: "figures" }, ...(item.decision === "failed" ? [item.reason] : [make("span", {}, `quality ${number(item.quality)}`), ...(gain(item) === null ? [] : [make("span", {}, `gain ${signed(-gain(item))}`)]), make("span", {}, `IoU to coarse ${number(item.coarse_iou)}`)])),
      group);
    const element = make("li", { class: "card" }, open, what);
    element.dataset.id = item.id;
    lazy.observe(element);
    return element;
  }
  const cards = new Map(items.map((item) => [item.id, card(item)]));

  // ---- filters; they stand in the URL, so that a view can be sent to somebody
  const CONTROLS = { category: "by-category", reason: "by-reason", decision: "by-decision", verdict: "by-verdict", quality: "by-quality", sort: "by-sort" };
  const UNSET = { quality: "1" };
  const SORTS = { gain, quality: (item) => item.quality, coarse_iou: (item) => item.coarse_iou, category: (item) => String(item.category), reason: (item) => item.reason };

  function toUrl() {
    const state = new URLSearchParams(stratum ? { show: stratum } : {});
    for (const [name, id] of Object.entries(CONTROLS)) if (by(id).value !== (UNSET[name] || "")) state.set(name, by(id).value);
    if (zoomed) state.set("mask", zoomed.id);
    const hash = String(state) ? `#view?${state}` : location.hash.startsWith("#view?") ? "#gallery" : location.hash;
    if (hash === location.hash) return;
    try { history.replaceState(null, "", hash); } catch { location.replace(hash); }
  }
  function fromUrl() {
    if (!location.hash.startsWith("#view?")) return;
    const state = new URLSearchParams(location.hash.slice(6));
    stratum = data.strata.some(([name]) => name === state.get("show")) ? state.get("show") : "";
    for (const [name, id] of Object.entries(CONTROLS)) {
      by(id).value = state.get(name) || UNSET[name] || "";
      if (by(id).selectedIndex === -1) by(id).value = "";
    }
    const asked = byId.get(state.get("mask"));
    show();
    by("gallery").scrollIntoView();
    if (asked) zoom(asked); else if (dialog.open) dialog.close();
  }
  function compare(a, b) {
    if (a === null || b === null) return (a === null) - (b === null);
    return typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  }
  function fits(item) {
    const verdict = verdicts.get(item.id) || "none";
    const most = Number(by("by-quality").value);
    return (!stratum || item.strata.includes(stratum))
      && (!by("by-category").value || String(item.category) === by("by-category").value)
      && (!by("by-reason").value || item.reason === by("by-reason").value)
      && (!by("by-decision").value || item.decision === by("by-decision").value)
      && (!by("by-verdict").value || verdict === by("by-verdict").value)
      && (most >= 1 || (item.quality !== null && item.quality <= most));
  }
  function show() {
    const position = SORTS[by("by-sort").value || { changed: "coarse_iou", lowest: "quality" }[stratum]];
    visible = items.filter(fits);
    if (position) visible.sort((a, b) => compare(position(a), position(b)));
    for (const button of by("strata").children) button.setAttribute("aria-pressed", String(button.dataset.stratum === stratum));
    by("cards").replaceChildren(...visible.map((item) => cards.get(item.id)));
    by("shown").textContent = `${visible.length} of ${items.length} sampled masks`;
    by("nothing").hidden = visible.length > 0;
    by("quality-text").textContent = number(Number(by("by-quality").value));
    by("commands").textContent = commands();
    toUrl();
  }
  // The same filters as `--where` takes them, quoted for SQL and then for a shell.
  function where() {
    const text = (value) => `'${value.replaceAll("'", "''")}'`;
    const chosen = ["category", "reason", "decision"].map((name) => [name, by(CONTROLS[name]).value]).filter(([, value]) => value);
    const parts = chosen.map(([name, value]) => (name === "category" && !items.some((item) => item.category === value) ? "category is null" : `${name} = ${text(value)}`));
    if (Number(by("by-quality").value) < 1) parts.push(`quality <= ${by("by-quality").value}`);
    return parts.join(" and ");
  }
  function commands() {
    const quoted = (value) => (/["$`\\!]/.test(value) ? `'${value.replaceAll("'", "'\\''")}'` : `"${value}"`);
    const shell = (value) => (/^[\w@%+=:,./-]+$/.test(value) ? value : quoted(value));
    const output = shell(data.output), chosen = where() ? ` --where ${shell(where())}` : "";
    return [
      `relabel review ${output} verdicts-${data.fingerprint}-${data.generation}.json`,
      `relabel export ${output} --format cvat --to to-review${chosen}`,
      `relabel review ${output} --from annotations.xml --sent to-review`,
      `relabel seal ${output}`,
    ].join("\n");
  }
  function tabs() {
    const all = [["", "All", items.length], ...data.strata.map(([name, title]) => [name, title, items.filter((item) => item.strata.includes(name)).length])];
    for (const [name, title, count] of all) {
      const button = make("button", { type: "button", "aria-pressed": String(name === stratum) }, title, make("span", {}, String(count)));
      button.dataset.stratum = name;
      button.addEventListener("click", () => {
        stratum = name;
        show();
      });
      by("strata").append(button);
    }
  }
  function options() {
    const categories = [...new Set(items.map((item) => String(item.category)))].sort();
    by("by-category").append(...categories.map((name) => make("option", { value: name }, name)));
    const reasons = [...new Set(items.map((item) => item.reason))].sort();
    by("by-reason").append(...reasons.map((name) => make("option", { value: name }, name)));
    const decisions = Object.entries(data.decisions).filter(([name]) => items.some((item) => item.decision === name));
    by("by-decision").append(...decisions.map(([name, title]) => make("option", { value: name }, title)));
    for (const id of Object.values(CONTROLS)) by(id).addEventListener("input", show);
    for (const kind of ["coarse", "refined"]) {
      by(`see-${kind}`).addEventListener("change", (event) => document.body.classList.toggle(`no-${kind}`, !event.target.checked));
    }
  }

  // ---- verdicts
  function judge(item, verdict) {
    verdict === null || verdicts.get(item.id) === verdict ? verdicts.delete(item.id) : verdicts.set(item.id, verdict);
    press(cards.get(item.id).querySelector(".judge"), item);
    if (zoomed === item) press(by("zoom-judge"), item);
    remember();
    tally();
  }
  function tally() {
    const counts = VERDICTS.map(([name]) => [name, [...verdicts.values()].filter((verdict) => verdict === name).length]).filter(([, count]) => count);
    by("tally").textContent = counts.length ? `${verdicts.size} of ${items.length} judged: ${counts.map(([name, count]) => `${count} ${name}`).join(", ")}` : "No verdicts yet";
    by("download").disabled = !verdicts.size;
  }
  by("download").addEventListener("click", () => {
    const content = {
      kind: data.kind, schema_version: data.schema_version, output: data.output, fingerprint: data.fingerprint, generation: data.generation,
      verdicts: items.filter((item) => verdicts.has(item.id)).map((item) => ({ mask_id: item.id, digest: item.digest, verdict: verdicts.get(item.id), strata: item.strata })),
    };
    const url = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
    const link = make("a", { href: url, download: `verdicts-${data.fingerprint}-${data.generation}.json` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  });

  // ---- zoom
  const stage = by("stage"), dialog = by("zoom");
  const wipe = beforeAndAfter(stage, () => (zoomed && zoomed.image ? [zoomed.width, zoomed.height] : null));
  const { fit, scale } = viewer(stage, () => (zoomed.image ? [zoomed.width, zoomed.height] : [400, 400]), 16);
  function zoom(item) {
    zoomed = item;
    by("zoom-title").textContent = named(item);
    fill(stage, item, true);
    wipe();
    fit();
    toUrl();
    judgeButtons(by("zoom-judge"), item, "");
    const facts = [
      ["decision", data.decisions[item.decision] || item.decision], ["reason", data.reasons[item.reason] || item.reason], ["quality", number(item.quality, 3)], ["gain", gain(item) === null ? "–" : signed(-gain(item))],
      ["of coarse", number(item.quality_coarse, 3)], ["of refined", number(item.quality_refined, 3)], ["IoU to coarse", number(item.coarse_iou, 3)],
      ["area ratio", number(item.area_ratio, 2)], ["predicted IoU", number(item.predicted_iou, 3)], ["stability", number(item.stability, 3)],
      ["image", item.image_uri], ["source id", item.source_mask_id], ["mask id", item.id],
      ["shown for", item.strata.map((name) => new Map(data.strata).get(name)).join(", ")],
    ];
    by("zoom-facts").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, String(value ?? "–"))]));
    if (!dialog.open) dialog.showModal();
  }
  function step(by_) {
    const at = visible.indexOf(zoomed);
    const item = visible[(at + by_ + visible.length) % visible.length];
    if (item) zoom(item);
  }
  by("previous").addEventListener("click", () => step(-1));
  by("next").addEventListener("click", () => step(1));
  by("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    const last = zoomed;
    zoomed = null;
    toUrl();
    if (last && cards.get(last.id).isConnected) cards.get(last.id).querySelector(".open").focus();
  });

  // ---- keys
  const focused = () => document.activeElement && document.activeElement.closest(".card");
  function current() {
    if (zoomed) return zoomed;
    const element = focused();
    return element ? byId.get(element.dataset.id) : null;
  }
  function move(by_) {
    const list = [...by("cards").children];
    const from = list.indexOf(focused());
    const to = list[from < 0 ? 0 : Math.min(Math.max(from + by_, 0), list.length - 1)];
    if (to) to.querySelector(".open").focus();
  }
  const columns = () => getComputedStyle(by("cards")).gridTemplateColumns.split(" ").length;
  function onKey(key) {
    const verdict = VERDICTS.find(([, letter]) => letter === key);
    const item = current();
    if (verdict || key === "u") {
      if (!item) return false;
      const before = verdicts.get(item.id);
      judge(item, verdict ? verdict[0] : null);
      if (zoomed && verdict && before !== verdict[0]) step(1);
      return true;
    }
    if (key === "s" && zoomed) { by("wipe").click(); return true; }
    if (key === "c" || key === "f") { by(key === "c" ? "see-coarse" : "see-refined").click(); return true; }
    const arrows = { arrowleft: -1, arrowright: 1 };
    if (key in arrows) { zoomed ? step(arrows[key]) : move(arrows[key]); return true; }
    if (zoomed) {
      const actions = { "+": () => scale(1.5), "=": () => scale(1.5), "-": () => scale(1 / 1.5), 0: fit };
      if (key in actions) { actions[key](); return true; }
      return false;
    }
    if ((key === "arrowup" || key === "arrowdown") && focused()) { move(key === "arrowup" ? -columns() : columns()); return true; }
    return false;
  }
  document.addEventListener("keydown", (event) => {
    const inField = event.target.closest && event.target.closest("select, input[type=range], .scroll");
    if (inField || event.ctrlKey || event.metaKey || event.altKey) return;
    if (onKey(event.key.toLowerCase())) event.preventDefault();
  });

  tabs();
  options();
  tally();
  location.hash.startsWith("#view?") ? fromUrl() : show();
  addEventListener("hashchange", fromUrl);
})();
