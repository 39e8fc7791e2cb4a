// Refreshes what carries data-live every few seconds, with the page as the server renders it. Pages work without this.
"use strict";
const EVERY_MS = 4000;
let busy = false;

async function refresh() {
  const active = document.activeElement;
  const typing = active && active.closest("[data-live] form");
  const selecting = String(window.getSelection() || "") !== "";
  if (busy || document.hidden || typing || selecting) return;
  busy = true;
  try {
    // The header says that nobody asked: refreshing does not keep a session alive.
    const response = await fetch(location.href, { headers: { accept: "text/html", "guardrail-refresh": "1" }, redirect: "manual" });
    if (response.type === "opaqueredirect") return void location.reload(); // the session has ended: to the login
    if (!response.ok) return;
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of document.querySelectorAll("[data-live]")) {
      const now = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
      if (!now || now.innerHTML === part.innerHTML) continue;
      const open = [...part.querySelectorAll("details")].map((d) => d.open);
      const link = part.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
      now.querySelectorAll("details").forEach((d, i) => { d.open = open[i] || false; });
      part.replaceChildren(...now.childNodes);
      if (link) [...part.querySelectorAll("a")].find((a) => a.getAttribute("href") === link)?.focus();
    }
  } catch {
    // The server is away; the next round tries again.
  } finally {
    busy = false;
  }
}

if (document.querySelector("[data-live]")) setInterval(refresh, EVERY_MS);
