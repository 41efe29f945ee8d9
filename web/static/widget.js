// Cocolu Hub's chat widget: one script, no dependencies, isolated from the page in a shadow root.
// <script src="https://hub/widget.js" data-channel="demo-web" async></script>
// Optional: data-name, data-identity-id + data-identity-hmac, data-color, data-lang, data-title, data-open="true".
(() => {
  const script = document.currentScript;
  const { channel, name = null, identityId, identityHmac, color = "#5b5bd6", open = "false" } = script.dataset;
  const origin = new URL(script.src).origin;
  const WORDS = {
    es: { title: "Chatea con nosotros", hello: "¡Hola! ¿En qué podemos ayudarte?", write: "Escribe tu mensaje…", send: "Enviar", open: "Abrir el chat", close: "Cerrar el chat", typing: "Escribiendo…", offline: "Reconectando…", sending: "Enviando…", sent: "Enviado", seen: "Visto", refused: "No se envió: " },
    en: { title: "Chat with us", hello: "Hi! How can we help?", write: "Write your message…", send: "Send", open: "Open the chat", close: "Close the chat", typing: "Typing…", offline: "Reconnecting…", sending: "Sending…", sent: "Sent", seen: "Seen", refused: "Not sent: " },
    pt: { title: "Fale com a gente", hello: "Olá! Como podemos ajudar?", write: "Escreva sua mensagem…", send: "Enviar", open: "Abrir o chat", close: "Fechar o chat", typing: "Digitando…", offline: "Reconectando…", sending: "Enviando…", sent: "Enviado", seen: "Visto", refused: "Não enviado: " },
  };
  const words = WORDS[script.dataset.lang] ?? WORDS[navigator.language.slice(0, 2)] ?? WORDS.es;
  const memory = `hub.chat.${channel}`;
  const known = JSON.parse(localStorage.getItem(memory) ?? "{}");
  const messages = new Map(); // key: seq once known, else client_id
  let socket, delay = 300, seen = 0, unread = 0, opened = open === "true", typing = 0;

  const CSS = `
    :host { all: initial; font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; --bg:#fff; --text:#1b1b1f; --soft:#6f6f7b; --in:#f1f1f4; --line:#e8e8ec; }
    @media (prefers-color-scheme: dark) { :host { --bg:#18181b; --text:#ededef; --soft:#9b9ba6; --in:#2a2a2f; --line:#2f2f35; } }
    * { box-sizing: border-box; } button { font: inherit; cursor: pointer; border: 0; }
    :focus-visible { outline: 2px solid ${color}; outline-offset: 2px; }
    .launch { position: fixed; right: 20px; bottom: 20px; width: 58px; height: 58px; border-radius: 50%; background: ${color}; color: #fff; box-shadow: 0 6px 24px rgb(0 0 0 / .25); font-size: 24px; z-index: 2147483000; transition: transform .15s; }
    .launch:hover { transform: scale(1.06); } .badge { position: absolute; top: -2px; right: -2px; background: #e5484d; color: #fff; border-radius: 99px; font-size: 12px; font-weight: 700; min-width: 20px; padding: 1px 5px; }
    .panel { position: fixed; right: 20px; bottom: 90px; width: min(370px, calc(100vw - 40px)); height: min(560px, calc(100dvh - 120px)); display: flex; flex-direction: column; background: var(--bg); color: var(--text); border-radius: 18px; overflow: hidden; box-shadow: 0 16px 60px rgb(0 0 0 / .28); z-index: 2147483000; }
    [hidden] { display: none !important; }
    header { background: ${color}; color: #fff; padding: 18px 20px; display: flex; align-items: center; } header strong { flex: 1; font-size: 16px; } header button { background: none; color: #fff; font-size: 20px; line-height: 1; padding: 4px 8px; border-radius: 8px; }
    .log { flex: 1; overflow-y: auto; padding: 16px; display: flex; flex-direction: column; gap: 8px; }
    .m { max-width: 82%; padding: 9px 13px; border-radius: 16px; white-space: pre-wrap; overflow-wrap: anywhere; background: var(--in); align-self: flex-start; border-bottom-left-radius: 5px; }
    .m.mine { align-self: flex-end; background: ${color}; color: #fff; border-bottom-left-radius: 16px; border-bottom-right-radius: 5px; } .m.waiting { opacity: .6; }
    .hint { font-size: 12px; color: var(--soft); align-self: flex-end; } .state { font-size: 12.5px; color: var(--soft); padding: 0 18px; min-height: 20px; }
    form { display: flex; gap: 8px; padding: 12px; border-top: 1px solid var(--line); } textarea { flex: 1; font: inherit; color: inherit; background: var(--in); border: 0; border-radius: 12px; padding: 10px 12px; resize: none; }
    form button { background: ${color}; color: #fff; border-radius: 12px; padding: 0 16px; font-weight: 600; }
    @media (max-width: 480px) { .panel { inset: 0; width: 100vw; height: 100dvh; border-radius: 0; } }`;

  const host = document.createElement("div");
  const shadow = host.attachShadow({ mode: "open" });
  const make = (tag, props = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(props)) key.startsWith("on") ? (node[key] = value) : node.setAttribute(key, value);
    node.append(...children);
    return node;
  };
  const style = make("style"); style.textContent = CSS;
  const log = make("div", { class: "log", role: "log", "aria-live": "polite" });
  const state = make("div", { class: "state" });
  const input = make("textarea", { rows: "1", placeholder: words.write, "aria-label": words.write, "data-testid": "widget-input" });
  const form = make("form", {}, input, make("button", { type: "submit", "data-testid": "widget-send" }, words.send));
  const panel = make("section", { class: "panel", role: "dialog", "aria-label": words.title },
    make("header", {}, make("strong", {}, script.dataset.title ?? words.title), make("button", { "aria-label": words.close, onclick: toggle }, "×")), log, state, form);
  const badge = make("span", { class: "badge" });
  const launch = make("button", { class: "launch", "aria-label": words.open, "data-testid": "widget-open", onclick: toggle }, "💬", badge);
  shadow.append(style, panel, launch);

  function toggle() { opened = !opened; draw(); if (opened) input.focus(); }

  function draw() {
    panel.hidden = !opened;
    if (opened) unread = 0;
    badge.hidden = unread === 0; badge.textContent = unread;
    const list = [...messages.values()].sort((a, b) => (a.seq ?? 1e9) - (b.seq ?? 1e9));
    const nodes = [make("div", { class: "m" }, words.hello)];
    for (const m of list) {
      const mine = m.kind === "inbound";
      nodes.push(make("div", { class: `m${mine ? " mine" : ""}${m.seq ? "" : " waiting"}`, "data-testid": "widget-message", "data-seq": m.seq ?? "" }, m.text));
    }
    const last = list.at(-1);
    if (last?.kind === "inbound") nodes.push(make("div", { class: "hint" }, !last.seq ? words.sending : last.seq <= seen ? words.seen : words.sent));
    log.replaceChildren(...nodes);
    log.scrollTop = log.scrollHeight;
    if (opened) acknowledge();
  }

  function acknowledge() {
    const newest = Math.max(0, ...[...messages.values()].filter((m) => m.kind === "outbound").map((m) => m.seq));
    if (newest > (known.read ?? 0) && send({ type: "read", seq: newest })) { known.read = newest; remember(); }
  }

  const remember = () => localStorage.setItem(memory, JSON.stringify(known));
  function send(frame) { if (socket?.readyState !== WebSocket.OPEN || !socket.ready) return false; socket.send(JSON.stringify(frame)); return true; }

  function connect() {
    socket = new WebSocket(`${origin.replace("http", "ws")}/v1/chat/${channel}`);
    socket.onopen = () => {
      const identity = identityId ? { id: identityId, hmac: identityHmac ?? "" } : null;
      socket.send(JSON.stringify({ type: "hello", visitor: null, token: identity ? null : known.token ?? null, name, identity }));
    };
    socket.onmessage = (event) => receive(JSON.parse(event.data));
    socket.onclose = (event) => {
      state.textContent = words.offline;
      if (event.code === 4401 && known.token) { delete known.token; remember(); }
      if (event.code === 4403) return;
      setTimeout(connect, delay * (0.5 + Math.random()));
      delay = Math.min(delay * 2, 15000);
    };
  }

  function receive(frame) {
    if (frame.type === "welcome") {
      delay = 300; state.textContent = ""; socket.ready = true;
      if (!identityId) { known.token = frame.token; remember(); }
      frame.messages.forEach(put);
      for (const m of messages.values()) if (!m.seq) send({ type: "message", client_id: m.client_id, text: m.text });
    } else if (frame.type === "ack") put({ ...frame.message, client_id: frame.client_id });
    else if (frame.type === "message") { put(frame.message); if (!opened) unread += 1; state.textContent = ""; }
    else if (frame.type === "typing") { state.textContent = frame.on ? words.typing : ""; clearTimeout(typing); typing = setTimeout(() => { state.textContent = ""; }, 5000); }
    else if (frame.type === "read") seen = Math.max(seen, frame.seq);
    else if (frame.type === "error" && frame.client_id && frame.retryable) setTimeout(() => again(frame.client_id), 1000);
    else if (frame.type === "error" && frame.client_id) { messages.delete(frame.client_id); state.textContent = words.refused + frame.detail; }
    draw();
  }

  function again(id) { const m = messages.get(id); if (m) send({ type: "message", client_id: id, text: m.text }); }

  function put(m) {
    messages.delete(m.client_id ?? m.external_id);
    messages.delete(m.external_id);
    messages.set(m.seq, m);
  }

  let told = 0;
  input.oninput = () => { if (Date.now() - told > 2000) { told = Date.now(); send({ type: "typing", on: true }); } };
  input.onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); } };
  panel.onkeydown = (event) => { if (event.key === "Escape") { toggle(); launch.focus(); } };
  form.onsubmit = (event) => {
    event.preventDefault();
    const text = input.value.trim();
    if (!text) return;
    input.value = "";
    const client_id = Array.from(crypto.getRandomValues(new Uint8Array(12)), (b) => b.toString(16).padStart(2, "0")).join("");
    messages.set(client_id, { client_id, kind: "inbound", text });
    send({ type: "message", client_id, text });
    draw();
  };

  const attach = () => { document.body.append(host); draw(); connect(); };
  document.body ? attach() : addEventListener("DOMContentLoaded", attach);
})();
