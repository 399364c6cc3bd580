"use strict";
// Keeps the live page live: asks for its JSON every two seconds and changes only the nodes that differ, so that a selected
// text, an open detail and the place that was scrolled to stay. Without this script the page is complete, too.
(() => {
  const live = document.querySelector("[data-live]");
  if (!live) return;
  const PAUSE_MS = 2000;

  /** Makes `old` say what `next` says. */
  function patch(old, next) {
    if (old.nodeType !== next.nodeType || old.nodeName !== next.nodeName) {
      old.replaceWith(next);
      return;
    }
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== next.data) old.data = next.data;
      return;
    }
    for (const { name } of [...(old.attributes ?? [])]) {
      if (name !== "open" && !next.hasAttribute(name)) old.removeAttribute(name);
    }
    for (const { name, value } of next.attributes ?? []) {
      if (old.getAttribute(name) !== value) old.setAttribute(name, value);
    }
    const before = [...old.childNodes];
    const after = [...next.childNodes];
    after.forEach((child, at) => (before[at] ? patch(before[at], child) : old.append(child)));
    before.slice(after.length).forEach((child) => child.remove());
  }

  function say(text) {
    const clock = live.querySelector("[data-as-of-text]");
    const dot = live.querySelector(".dot");
    if (clock && !clock.dataset.last) clock.dataset.last = clock.textContent;
    if (clock) clock.textContent = `${text} ${clock.dataset.last}.`;
    if (dot) dot.classList.add("off");
  }

  async function refresh() {
    try {
      const answer = await fetch(live.dataset.live, {
        headers: { accept: "application/json" },
        cache: "no-store",
        signal: AbortSignal.timeout(15000),
      });
      if (answer.status === 401) {
        location.reload();
        return;
      }
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const { html } = await answer.json();
      // Rendered and escaped by the server, the same template as the page itself.
      const next = new DOMParser().parseFromString(`<div>${html}</div>`, "text/html").body.firstChild;
      for (const { name, value } of live.attributes) next.setAttribute(name, value);
      patch(live, next);
    } catch {
      say("The console does not answer.");
    }
  }

  const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  /** A page that nobody looks at asks for nothing. */
  const seen = () =>
    new Promise((resolve) => {
      if (document.hidden) document.addEventListener("visibilitychange", resolve, { once: true });
      else resolve();
    });

  (async () => {
    for (;;) {
      await pause();
      await seen();
      await refresh();
    }
  })();
})();
