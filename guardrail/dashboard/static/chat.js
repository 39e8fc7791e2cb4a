// The demo's chat: sends the conversation to the proxy as any app would, and shows why each exchange went as it did.
"use strict";
const conversation = document.getElementById("conversation");
const form = document.getElementById("form");
const box = document.getElementById("say");
const send = document.getElementById("send");
const country = document.getElementById("country");
const countryHeader = document.body.dataset.countryHeader;
let messages = [];

const words = (name) => String(name).replaceAll("_", " ");

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

function addTurn(text) {
  const patient = element("div", { class: "bubble patient" }, element("span", { class: "by" }, "You"), element("span", { class: "words" }, text));
  const reply = element("span", { class: "words" });
  const by = element("span", { class: "by" }, "…");
  const bot = element("div", { class: "bubble bot" }, by, reply);
  const why = element("aside", { "aria-label": "Why" }, element("p", { class: "soft" }, "Reading…"));
  const turn = element("article", { class: "turn" }, element("div", { class: "said" }, patient, bot), why);
  conversation.append(turn);
  turn.scrollIntoView({ block: "end" });
  return { turn, patient, bot, by, reply, why };
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    const frames = held.split("\n\n");
    held = frames.pop();
    for (const frame of frames) if (frame.startsWith("data: ") && frame !== "data: [DONE]") yield JSON.parse(frame.slice(6));
  }
}

async function say(text) {
  messages.push({ role: "user", content: text });
  const shown = addTurn(text);
  send.disabled = true;
  try {
    const headers = { "content-type": "application/json" };
    if (country.value) headers[countryHeader] = country.value;
    const body = JSON.stringify({ model: "stand-in", stream: true, messages });
    const response = await fetch("/v1/chat/completions", { method: "POST", headers, body });
    const answered = (response.headers.get("guardrail-decision") || "").startsWith("answer");
    shown.by.textContent = answered ? "The guard, in place of the chatbot" : "Chatbot, reviewed by the guard";
    if (answered) shown.bot.classList.add("answered");
    if (!response.ok) {
      shown.reply.textContent = (await response.json()).error.message;
    } else {
      for await (const event of events(response)) {
        shown.reply.append(event.choices?.[0]?.delta?.content || "");
        shown.turn.scrollIntoView({ block: "end" });
      }
    }
    messages.push({ role: "assistant", content: shown.reply.textContent });
    await explain(shown, response.headers.get("guardrail-exchange"));
  } catch {
    messages.pop();
    shown.reply.textContent = "The demo does not answer. Is it still running?";
    shown.why.replaceChildren();
  } finally {
    send.disabled = false;
    shown.turn.scrollIntoView({ block: "end" });
  }
}

async function explain(shown, exchange) {
  const response = await fetch(`/demo/exchanges/${encodeURIComponent(exchange)}`);
  if (!response.ok) return;
  const found = await response.json();
  shown.patient.querySelector(".words").replaceChildren(
    ...found.text.map((s) => (s.kind ? element("mark", { class: s.kind, title: s.title }, s.text) : s.text)),
  );
  shown.why.classList.add(found.urgency);
  shown.why.replaceChildren(...reasons(found));
}

function evidence(row) {
  const cues = row.cues.map((cue) => `“${cue.text}”`).join(", ");
  // The second reader judges whole sentences: what weighed most says more than the sentence again.
  if (cues && row.cues[0].kind === "weight") return element("li", {}, `weighed most: ${cues}`);
  const line = element("li", {}, `“${row.text}”: ${row.counts ? row.concepts[0] : row.understood}`);
  if (cues) line.append(element("span", { class: "soft" }, ` · because of ${cues}`));
  return line;
}

function* reasons(found) {
  const badge = (word, kind = word) => element("span", { class: `badge ${kind}` }, words(word));
  const head = element("p", {}, badge(found.urgency), " ");
  if (found.destination !== "none") head.append(`${words(found.destination)} · `);
  head.append({ answer: "answered by the guard, chatbot not asked", annotate: "forwarded, with a notice", forward: "forwarded" }[found.action] || "refused");
  yield head;
  for (const rule of found.rules) {
    yield element("h3", {}, rule.title);
    yield element("ul", {}, ...rule.evidence.map(evidence));
    yield element("p", { class: "soft small" }, element("code", {}, `${rule.pack}/${rule.id}`), rule.sources.length ? ` · ${rule.sources.join("; ")}` : "");
  }
  if (!found.rules.length) yield element("p", { class: "soft" }, "No rule held.");
  if (found.set_aside.length) {
    yield element("h3", {}, "Read, and set aside");
    yield element("ul", {}, ...found.set_aside.map(evidence));
  }
  if (found.reply.issues.length) {
    yield element("h3", {}, "The chatbot's reply was corrected");
    yield element("p", {}, ...found.reply.issues.flatMap((issue) => [badge(issue, "cut"), " "]));
  } else if (found.reply.disclaimer_added) {
    yield element("p", { class: "soft" }, "The reply was fine; a disclaimer was added.");
  }
  yield element("p", { class: "soft small" }, `Reviewed in ${found.guard_ms.toFixed(2)} ms · `,
    element("a", { href: `/-/dashboard/exchanges/${encodeURIComponent(found.id)}` }, "on the dashboard"));
}

function restart() {
  messages = [];
  if (conversation.lastElementChild) conversation.append(element("hr"));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const text = box.value.trim();
  if (!text || send.disabled) return;
  box.value = "";
  say(text);
});
box.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => {
    if (send.disabled) return;
    restart();
    say(button.dataset.example);
  });
}
document.getElementById("new").addEventListener("click", () => { restart(); box.focus(); });
