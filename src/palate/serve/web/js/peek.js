/** On narrow screens: the end of the answer at the foot of the screen while the triangle is dragged. */

import { byId } from "./dom.js";

const MAX_LETTERS = 130;

/** Show it while an answer is there but out of sight. */
export function mountPeek() {
  const peek = byId("peek");
  const result = byId("result");
  let isAnswerSeen = true;
  let isTriangleSeen = false;
  const update = () => {
    const text = result.querySelector(".answer .answer-text")?.textContent ?? "";
    peek.hidden = isAnswerSeen || !isTriangleSeen || text === "";
    peek.textContent = text.length > MAX_LETTERS ? `… ${text.slice(-MAX_LETTERS)}` : text;
  };
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (target === result) isAnswerSeen = isIntersecting;
      else isTriangleSeen = isIntersecting;
    }
    update();
  });
  watcher.observe(result);
  watcher.observe(byId("triangle"));
  new MutationObserver(update).observe(result, {
    childList: true,
    subtree: true,
    characterData: true,
  });
  peek.addEventListener("click", () => result.scrollIntoView({ behavior: "smooth" }));
}
