"use strict";
// What the pages share: elements by their names, and an image that is zoomed and moved with pointer, wheel and buttons.
const by = (id) => document.getElementById(id);

// Text is always text, never markup.
function make(tag, values = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
function draw(tag, values = {}) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  return element;
}

// size: says [width, height] of what the stage shows. deepest: how many times larger it can be made.
function viewer(stage, size, deepest) {
  let view = null, held = null, apart = 0;
  const fingers = new Map();
  const look = () => stage.setAttribute("viewBox", `${view.x} ${view.y} ${view.w} ${view.h}`);
  function fit() {
    const [w, h] = size();
    view = { x: 0, y: 0, w, h };
    look();
  }
  function scale(factor, x = view.x + view.w / 2, y = view.y + view.h / 2) {
    const [width] = size();
    const bounded = Math.min(Math.max(factor, view.w / (width * 2)), view.w / (width / deepest));
    view = { x: x - (x - view.x) / bounded, y: y - (y - view.y) / bounded, w: view.w / bounded, h: view.h / bounded };
    look();
  }
  function at(event) {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(stage.getScreenCTM().inverse());
    return [point.x, point.y];
  }
  stage.addEventListener("wheel", (event) => { event.preventDefault(); scale(Math.exp(-event.deltaY / 300), ...at(event)); }, { passive: false });
  function distance() {
    const [one, other] = [...fingers.values()];
    return Math.max(1, Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY));
  }
  function between() {
    const [one, other] = [...fingers.values()];
    return at({ clientX: (one.clientX + other.clientX) / 2, clientY: (one.clientY + other.clientY) / 2 });
  }
  stage.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, event);
    held = fingers.size === 1 ? at(event) : null;
    if (fingers.size === 2) apart = distance();
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", (event) => {
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, event);
    if (fingers.size === 2) {
      const now = distance();
      scale(now / apart, ...between());
      apart = now;
    }
    if (!held) return;
    const [x, y] = at(event);
    view = { ...view, x: view.x + held[0] - x, y: view.y + held[1] - y };
    look();
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, (event) => { held = null; fingers.delete(event.pointerId); });
  by("zoom-in").addEventListener("click", () => scale(1.5));
  by("zoom-out").addEventListener("click", () => scale(1 / 1.5));
  by("zoom-fit").addEventListener("click", fit);
  return { fit, scale };
}
