// The page: plain JavaScript, no library, no request to anywhere but this server.
"use strict";
const at = (id) => document.getElementById(id);
const SETTINGS = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];
let history = []; // messages of a chat; for a model without a template, one text that goes on
let running = null; // AbortController of the answer being written
let models = [];
let settled = null; // the model whose own settings are shown
let before = null; // the last look at the engine: {id, tokens, time}
const narrow = matchMedia("(max-width: 46rem)").matches;

const headers = (more = {}) => {
  const key = sessionStorage.getItem("key");
  return key ? { authorization: `Bearer ${key}`, ...more } : more;
};

async function ask(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: headers(options.headers) });
  if (answer.status === 401) {
    if (!at("door").open) at("door").showModal();
    throw new Error("The server wants its API key.");
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => null);
    throw new Error(body?.error?.message ?? `The server answered ${answer.status}.`);
  }
  return answer;
}

const chosen = () => models.find((model) => model.id === at("model").value) ?? models[0];

function show(role, text, extra = "") {
  const box = document.createElement("article");
  box.className = `said ${role} ${chosen()?.chat === false && role !== "wrong" ? "code" : ""} ${extra}`;
  box.setAttribute("aria-label", role === "user" ? "You" : role === "wrong" ? "Error" : "Answer");
  const words = document.createElement("span");
  words.textContent = text;
  box.append(words);
  at("talk").append(box);
  at("talk").scrollTop = at("talk").scrollHeight;
  return words;
}

function request() {
  const model = chosen();
  const body = { model: model.id, stream: true, stream_options: { include_usage: true } };
  for (const name of SETTINGS) {
    const value = at(name).value.trim();
    if (value !== "") body[name] = Number(value);
  }
  const system = at("system").value.trim();
  if (model.chat) {
    body.messages = [...(system ? [{ role: "system", content: system }] : []), ...history];
    return ["v1/chat/completions", body];
  }
  body.prompt = history.map((one) => one.content).join("");
  body.max_tokens ??= 128;
  return ["v1/completions", body];
}

async function* events(answer) { // server-sent events: blocks divided by an empty line
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      if (!block.startsWith("data: ") || block === "data: [DONE]") continue;
      const event = JSON.parse(block.slice(6));
      if (event.error) throw new Error(event.error.message);
      yield event;
    }
  }
}

function think(words) { // a place for thoughts before an answer: open until the answer begins
  const box = document.createElement("details");
  box.className = "thought";
  box.open = true;
  const title = document.createElement("summary");
  title.textContent = "Thought";
  const thought = document.createElement("span");
  box.append(title, thought);
  words.before(box);
  return thought;
}

async function send(text) {
  history.push({ role: "user", content: text });
  show("user", text);
  const words = show("assistant", "");
  const [path, body] = request();
  const began = performance.now();
  let first = null, usage = null, reason = null, written = "", mind = null;
  if (!chosen().loaded) at("speed").textContent = `${chosen().id} is being loaded…`;
  running = new AbortController();
  at("stop").hidden = false;
  at("send").hidden = true;
  at("stop").focus();
  try {
    const answer = await ask(path, {
      method: "POST", body: JSON.stringify(body), signal: running.signal,
      headers: { "content-type": "application/json" },
    });
    for await (const event of events(answer)) {
      const choice = event.choices[0];
      const piece = choice?.delta?.content ?? choice?.text ?? "";
      const thought = choice?.delta?.reasoning_content ?? "";
      if (thought) {
        first ??= performance.now();
        mind ??= think(words);
        mind.textContent += thought;
        at("talk").scrollTop = at("talk").scrollHeight;
      }
      if (piece) {
        if (mind && !written) mind.parentElement.open = false;
        first ??= performance.now();
        written += piece;
        const low = at("talk").scrollHeight - at("talk").scrollTop - at("talk").clientHeight < 80;
        words.textContent = written;
        if (low) at("talk").scrollTop = at("talk").scrollHeight;
      }
      reason = choice?.finish_reason ?? reason;
      usage = event.usage ?? usage;
    }
  } catch (problem) {
    if (problem.name === "AbortError") reason = "stopped";
    else show("wrong", problem.message);
  }
  const seconds = (performance.now() - (first ?? began)) / 1000;
  const facts = [];
  if (first !== null) facts.push(`first token after ${Math.round(first - began)} ms`);
  if (usage && usage.completion_tokens > 1) {
    facts.push(`${usage.completion_tokens} tokens`, `${((usage.completion_tokens - 1) / seconds).toFixed(1)} tokens/s`);
  }
  if (usage) facts.push(`prompt ${usage.prompt_tokens}`);
  if (reason === "length") facts.push("cut by the limit");
  if (reason === "stopped") facts.push("stopped");
  at("speed").textContent = facts.join(" · ");
  if (written) history.push({ role: "assistant", content: written });
  else if (!mind) words.parentElement.remove();
  running = null;
  at("stop").hidden = true;
  at("send").hidden = false;
  at("prompt").focus();
}

async function look() { // what the engine is doing
  try {
    const found = await (await ask("status")).json();
    if (JSON.stringify(found.models.map((m) => m.id)) !== JSON.stringify(models.map((m) => m.id))) list(found.models);
    models = found.models;
    for (const option of at("model").options) {
      const label = models.find((one) => one.id === option.value)?.loaded ? option.value : `${option.value} (not loaded)`;
      if (option.textContent !== label) option.textContent = label;
    }
    const model = chosen();
    if (!model) return;
    if (model.loaded && settled !== model.id) settle();
    at("memory").textContent = !model.loaded ? (model.loading ? "is being loaded" : "not loaded")
      : model.expires ? `until ${new Date(model.expires * 1000).toLocaleTimeString()}` : "stays";
    at("running").textContent = `${model.running}, ${model.waiting}`;
    at("cache").value = model.cache_used / (model.cache_tokens || 1);
    at("cached").textContent = model.loaded ? `${model.cache_used} of ${model.cache_tokens} tokens` : "–";
    const now = performance.now();
    if (before?.id === model.id) {
      const rate = (model.generated_tokens - before.tokens) / ((now - before.time) / 1000);
      at("rate").textContent = rate > 0 ? `${rate.toFixed(1)} tokens/s` : "idle";
    }
    before = { id: model.id, tokens: model.generated_tokens, time: now };
    at("slots").replaceChildren(...model.slots.map((slot) => {
      const line = document.createElement("li");
      line.textContent = `${slot.state}: ${slot.prompt_tokens} in, ${slot.generated_tokens} out`;
      return line;
    }));
  } catch (problem) {
    at("running").textContent = problem.message;
  }
}

function list(found) {
  const kept = at("model").value;
  at("model").replaceChildren(...found.map((model) => new Option(model.id, model.id)));
  if (found.some((model) => model.id === kept)) at("model").value = kept;
  models = found;
  settle();
}

function settle() { // the chosen model's own settings, which are known once it is loaded
  const model = chosen();
  settled = model?.loaded ? model.id : null;
  for (const name of SETTINGS.slice(0, 5)) at(name).value = model?.defaults[name] ?? "";
  at("system").disabled = !model?.chat;
  at("system").placeholder = model?.chat ? "" : "this model completes text";
}

function fresh() {
  running?.abort();
  history = [];
  at("talk").replaceChildren();
  at("speed").textContent = "\u00a0";
  at("prompt").focus();
}

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = at("prompt").value;
  if (running || !text.trim() || !models.length) return;
  at("prompt").value = "";
  send(text);
});
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
  if (event.altKey && event.key.toLowerCase() === "n") fresh();
});
at("stop").addEventListener("click", () => running?.abort());
at("fresh").addEventListener("click", fresh);
at("model").addEventListener("change", () => { fresh(); settle(); before = null; look(); });
at("door").addEventListener("close", () => { sessionStorage.setItem("key", at("key").value.trim()); look(); });
if (narrow) for (const id of ["settings", "live"]) at(id).open = false;
look();
setInterval(() => { if (!document.hidden && !at("door").open) look(); }, 1000);
