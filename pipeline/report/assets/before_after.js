"use strict";
// The coarse mask left of a line, the refined one right of it; the line is dragged, or moved by the slider.
// size: says [width, height] of the image that the stage shows, null for none. Made before the stage's viewer, so that
// what takes the line does not move the image. Returns what draws the line again on another image.
function beforeAndAfter(stage, size) {
  const GRIP_PX = 28;
  const slider = by("wipe-at"), switched = by("wipe");
  let gripped = false;

  function wipe() {
    const shown = switched.checked ? size() : null;
    slider.hidden = !shown;
    stage.classList.toggle("wiped", Boolean(shown));
    for (const old of stage.querySelectorAll(".wipe")) old.remove();
    for (const path of stage.querySelectorAll("path")) path.removeAttribute("clip-path");
    if (!shown) return;
    const [width, height] = shown, x = width * Number(slider.value);
    for (const [kind, left, wide] of [["coarse", 0, x], ["refined", x, width - x]]) {
      const clip = draw("clipPath", { id: `wipe-${kind}`, class: "wipe" });
      clip.append(draw("rect", { x: left, y: 0, width: wide, height }));
      stage.append(clip);
      for (const path of stage.querySelectorAll(`path.of-${kind}`)) path.setAttribute("clip-path", `url(#wipe-${kind})`);
    }
    stage.append(draw("line", { class: "wipe", x1: x, x2: x, y1: 0, y2: height }));
  }

  stage.addEventListener("pointerdown", (event) => {
    const line = stage.querySelector("line.wipe");
    if (!line || Math.abs(line.getBoundingClientRect().x - event.clientX) > GRIP_PX) return;
    gripped = true;
    stage.setPointerCapture(event.pointerId);
    event.stopImmediatePropagation();
  });
  stage.addEventListener("pointermove", (event) => {
    if (!gripped) return;
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(stage.getScreenCTM().inverse());
    slider.value = String(point.x / size()[0]);
    wipe();
  });
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, () => { gripped = false; });
  switched.addEventListener("change", wipe);
  slider.addEventListener("input", wipe);
  return wipe;
}
