// The inbox. State changes, then `render` draws what changed: small enough to need no framework yet.
import { api, session, signIn, signOut as endSession, Stream } from "./hub.js";
import { avatar, h, icon, toast } from "./dom.js";
import { State } from "./state.js";
import { ago, clock, lang, setLang, t, WORDS } from "./words.js";

const root = document.getElementById("app");
const demo = document.querySelector('meta[name="hub-demo"]').content === "1";
const ICONS = { whatsapp: "💬", web: "🌐", api: "⚡", telegram: "✈️", email: "✉️", sms: "📱" };
const TICKS = { queued: "🕓", sent: "✓", delivered: "✓✓", read: "✓✓", failed: "!", uncertain: "?" };
let state, stream, me, ui;

const theme = localStorage.getItem("hub.theme");
if (theme) document.documentElement.dataset.theme = theme;

function switchTheme() {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("hub.theme", document.documentElement.dataset.theme);
}

function switches(redraw) {
  return h("div.switches", {},
    h("select.quiet", { "aria-label": t("language"), onchange: (e) => { setLang(e.target.value); redraw(); } },
      Object.keys(WORDS).map((code) => h("option", { value: code, selected: code === lang }, code.toUpperCase()))),
    h("button.quiet", { "aria-label": t("theme"), title: t("theme"), onclick: switchTheme }, icon("theme")));
}

// --- signing in ------------------------------------------------------------------------------------------------------

function drawSignIn(why = "") {
  const email = h("input", { type: "email", autocomplete: "username", required: true, "data-testid": "login-email", id: "email" });
  const password = h("input", { type: "password", autocomplete: "current-password", required: true, "data-testid": "login-password", id: "password" });
  const submit = async (event) => {
    event.preventDefault();
    try { await signIn(email.value, password.value); await start(); } catch (error) { drawSignIn(error.message); }
  };
  const logins = ["ana@demo.test", "luis@demo.test", "admin@demo.test"].map((login) =>
    h("button.chip", { type: "button", onclick: () => { email.value = login; password.value = "demo"; email.form.requestSubmit(); } }, login));
  root.replaceChildren(h("main.sign-in", {},
    h("form.card", { onsubmit: submit },
      h("img", { src: "/assets/icon.svg", alt: "", width: 44, height: 44 }), h("h1", {}, "Cocolu Hub"), h("p.soft", {}, t("tagline")),
      h("label", { for: "email" }, t("email")), email, h("label", { for: "password" }, t("password")), password,
      why && h("p.error", { role: "alert" }, t("wrong_login", { why })),
      h("button.primary", { type: "submit", "data-testid": "login-submit" }, t("sign_in")),
      demo && h("div.demo-logins", {}, h("p.soft", {}, t("demo_logins")), h("div.chips", {}, logins))),
    switches(() => drawSignIn())));
  email.focus();
}

// --- the inbox -------------------------------------------------------------------------------------------------------

async function start() {
  me = await api("GET", "/v1/me");
  state = new State();
  ui = { filter: "open", query: "", open: null, kind: "outbound", drafts: new Map(), online: true, loading: true, people: new Map(), cursor: null };
  drawFrame();
  stream = new Stream({
    onState: (online) => { ui.online = online; document.getElementById("offline").hidden = online; },
    onReload: load,
    onEvent: (event) => { state.event(event); refreshSoon(); },
    onFrame: presence,
  });
}

async function load(more = false) {
  try {
    const query = new URLSearchParams({ limit: "50", ...(more && ui.cursor ? { cursor: ui.cursor } : {}) });
    const page = await api("GET", `/v1/conversations?${query}`);
    page.items.forEach((item) => state.conversation(item));
    ui.cursor = page.next_cursor;
    ui.loading = false;
    if (ui.open) await loadThread(ui.open);
    refresh();
  } catch (error) { toast(error.message, { label: t("retry"), run: load }); }
}

async function loadThread(id) {
  if (!state.messages.has(id)) state.messages.set(id, new Map());
  const page = await api("GET", `/v1/conversations/${id}/messages?limit=100`);
  page.items.forEach((item) => state.message(item));
}

let scheduled = false;
function refreshSoon() { if (!scheduled) { scheduled = true; requestAnimationFrame(() => { scheduled = false; refresh(); }); } }
function refresh() { drawList(); if (ui.open) drawThread(); }

function drawFrame() {
  const filters = ["open", "mine", "resolved", "all"].map((name) =>
    h("button.tab", { "data-filter": name, onclick: () => { ui.filter = name; refresh(); } }, t(name)));
  root.replaceChildren(h("div.inbox", { id: "inbox" },
    h("aside.list-pane", { "aria-label": t("inbox") },
      h("header.bar", {}, h("img", { src: "/assets/icon.svg", alt: "", width: 26, height: 26 }), h("h1", {}, t("inbox")), switches(() => { drawFrame(); refresh(); }),
        h("button.quiet", { title: t("sign_out"), "aria-label": t("sign_out"), onclick: signOut }, icon("out"))),
      h("div.search", {}, h("input", { id: "search", type: "search", placeholder: t("search"), "aria-label": t("search"), value: ui.query,
        oninput: (e) => { ui.query = e.target.value; drawList(); } })),
      h("nav.tabs", {}, filters),
      h("div.offline", { id: "offline", hidden: ui.online, role: "status" }, t("offline")),
      h("div.list", { id: "list", role: "list" })),
    h("main.thread-pane", { id: "thread" })));
  drawList();
  drawThread();
}

function drawList() {
  const list = document.getElementById("list");
  for (const tab of document.querySelectorAll(".list-pane .tab")) tab.setAttribute("aria-pressed", String(tab.dataset.filter === ui.filter));
  const items = state.list({ filter: ui.filter, me, query: ui.query });
  if (ui.loading) return list.replaceChildren(...Array.from({ length: 7 }, () => h("div.row.skeleton", {}, h("span.avatar"), h("div", {}, h("i"), h("i")))));
  if (!items.length) return list.replaceChildren(h("div.empty", {}, h("div.art", {}, "☕"), h("strong", {}, t("empty_list")), h("p.soft", {}, t("empty_list_hint"))));
  list.replaceChildren(...items.map(row), ...(ui.cursor ? [h("button.quiet.more", { onclick: () => load(true) }, t("more"))] : []));
}

// A visitor nobody knows yet still needs a name to be told apart by.
const nameOf = (c) => c.customer.name ?? `${t("customer")} ${c.customer.id.slice(-4).toUpperCase()}`;

function row(c) {
  const last = c.last_message;
  const name = nameOf(c);
  const who = last && last.author.type === "agent" ? `${last.author.id === me.id ? t("you") : last.author.name}: ` : "";
  return h(`button.row${c.id === ui.open ? ".current" : ""}${c.unread ? ".unread" : ""}`,
    { "data-testid": "conversation-item", "data-id": c.id, role: "listitem", onclick: () => open(c.id) },
    avatar(name, c.customer.id),
    h("div.row-text", {},
      h("div.row-top", {}, h("span.name", {}, name), h("time", { datetime: c.updated_at }, ago(c.updated_at))),
      h("div.row-bottom", {},
        h("span.preview", {}, `${ICONS[c.channel.kind] ?? ""} ${who}${last?.text || (last ? "📎" : "")}`),
        c.unread > 0 && h("span.badge", {}, c.unread > 99 ? "99+" : c.unread),
        c.status !== "open" && h(`span.pill.${c.status}`, {}, t(`status_${c.status}`)))));
}

async function open(id) {
  if (ui.open === id) { document.getElementById("inbox").classList.add("reading"); return; }
  if (ui.open) stream.unfollow(`conversation:${ui.open}`);
  ui.open = id;
  ui.people.clear();
  document.getElementById("inbox").classList.add("reading");
  document.getElementById("thread").replaceChildren();
  refresh();
  stream.follow(`conversation:${id}`);
  stream.send({ type: "viewing", conversation: id });
  try { await loadThread(id); refresh(); await api("POST", `/v1/conversations/${id}/read`, {}); } catch (error) { toast(error.message); }
}

function leave() { document.getElementById("inbox").classList.remove("reading"); }

function drawThread() {
  const pane = document.getElementById("thread");
  const c = ui.open && state.conversations.get(ui.open);
  if (!c) return pane.replaceChildren(h("div.empty.big", {}, h("div.art", {}, "💬"), h("strong", {}, t("pick")), h("p.soft", {}, t("pick_hint"))));
  if (pane.dataset.id !== c.id || pane.dataset.lang !== lang || !pane.querySelector(".messages")) {
    pane.dataset.id = c.id; pane.dataset.lang = lang;
    pane.replaceChildren(h("header.bar"), h("div.messages", { "data-testid": "thread", tabindex: "0", role: "log" }), h("div.presence"), composer(c));
  }
  pane.querySelector("header").replaceWith(threadBar(c));
  drawMessages(pane.querySelector(".messages"), c);
  drawPresence();
}

function threadBar(c) {
  const resolved = c.status === "resolved";
  return h("header.bar", {},
    h("button.quiet.back", { "aria-label": t("back"), onclick: leave }, "‹"),
    avatar(nameOf(c), c.customer.id),
    h("div.who", {}, h("strong", {}, nameOf(c)), h("span.soft", {}, `${c.channel.id} · ${t(`status_${c.status}`)}`)),
    h("div.actions", {},
      h("button", { onclick: () => change(c, { assignee: c.assignee === me.id ? null : me.id }), "aria-pressed": String(c.assignee === me.id) }, c.assignee === me.id ? t("assigned_me") : t("assign_me")),
      h("button", { onclick: () => change(c, c.status === "snoozed" ? { status: "open" } : { snoozed_until: new Date(Date.now() + 3600e3).toISOString() }) }, c.status === "snoozed" ? t("wake") : t("snooze")),
      h("button.primary", { "data-testid": "resolve", onclick: () => change(c, { status: resolved ? "open" : "resolved" }) }, resolved ? t("reopen") : t("resolve"))));
}

async function change(c, what) {
  try { state.conversation(await api("PATCH", `/v1/conversations/${c.id}`, what)); refresh(); } catch (error) { toast(error.message); }
}

function drawMessages(box, c) {
  const near = box.scrollHeight - box.scrollTop - box.clientHeight < 80;
  const drawn = new Map([...box.children].map((node) => [node.dataset.key, node]));
  const nodes = [];
  let day = "";
  for (const m of state.thread(c.id)) {
    const date = new Date(m.created_at).toLocaleDateString(lang, { weekday: "long", day: "numeric", month: "long" });
    if (date !== day) { nodes.push(drawn.get(`day ${date}`) ?? h("div.day", { "data-key": `day ${date}` }, date)); day = date; }
    const key = `${m.seq} ${m.status} ${m.pending ?? ""}`;
    nodes.push(drawn.get(key) ?? bubble(m, key));
  }
  box.replaceChildren(...nodes);
  if (near) box.scrollTop = box.scrollHeight;
}

function bubble(m, key) {
  const side = m.kind === "inbound" ? "in" : m.kind === "note" ? "note" : "out";
  const status = m.status ?? (m.pending ? "queued" : null);
  const text = m.unsupported ? h("em", {}, t("unsupported", { kind: m.unsupported })) : m.text;
  return h(`div.message.${side}`, { "data-testid": "message", "data-key": key, "data-seq": m.seq, "data-status": m.status ?? "", "data-kind": m.kind },
    h("div.bubble", {}, text, m.attachments?.length ? h("div.soft", {}, m.attachments.map((a) => `📎 ${a.name ?? a.kind} `)) : null),
    h("div.meta", {}, side !== "in" && h("span", {}, m.author.name ?? ""), h("time", {}, clock(m.created_at)),
      side === "out" && status && h(`span.tick.${status}`, { title: m.error ? `${t(`st_${status}`)}: ${m.error.detail}` : t(`st_${status}`) }, TICKS[status])));
}

function composer(c) {
  const input = h("textarea", { rows: 2, "data-testid": "composer-input", placeholder: t(ui.kind === "note" ? "write_note" : "write_reply"), "aria-label": t("reply"), value: ui.drafts.get(c.id) ?? "" });
  const submit = () => { const text = input.value.trim(); if (text) { input.value = ""; ui.drafts.delete(c.id); say(c.id, text, ui.kind); } };
  let typed = 0;
  input.oninput = () => {
    ui.drafts.set(c.id, input.value);
    if (ui.kind === "outbound" && Date.now() - typed > 2000) { typed = Date.now(); stream.send({ type: "typing", conversation: c.id, on: true }); }
  };
  input.onkeydown = (e) => { if (e.key === "Enter" && !e.shiftKey && !e.isComposing) { e.preventDefault(); submit(); } };
  const mode = (kind) => h("button.tab", { type: "button", "data-kind": kind, "aria-pressed": String(ui.kind === kind), onclick: () => { ui.kind = kind; redrawComposer(c); } }, t(kind === "note" ? "note" : "reply"));
  return h(`form.composer${ui.kind === "note" ? ".noting" : ""}`, { onsubmit: (e) => { e.preventDefault(); submit(); } },
    h("div.tabs", {}, mode("outbound"), mode("note")),
    h("div.compose-row", {}, input, h("button.primary", { type: "submit", "data-testid": "composer-send" }, t("send"))));
}

function redrawComposer(c) {
  document.querySelector(".composer").replaceWith(composer(c));
  document.querySelector(".composer textarea").focus();
}

async function say(conversation, text, kind) {
  const client_id = crypto.randomUUID();
  const seen = state.conversations.get(conversation).seq;
  const pending = { id: client_id, seq: client_id, conversation, kind, text, client_id, author: { type: "agent", id: me.id, name: me.name }, created_at: new Date().toISOString(), pending: true };
  state.messages.get(conversation).set(client_id, pending);
  drawThread();
  const box = document.querySelector(".messages");
  box.scrollTop = box.scrollHeight;
  const forget = () => { state.messages.get(conversation).delete(client_id); refresh(); };
  try {
    state.message(await api("POST", `/v1/conversations/${conversation}/messages`, { text, kind, client_id, if_seq: seen }));
    forget();
  } catch (error) {
    forget();
    ui.drafts.set(conversation, text);
    if (ui.open === conversation) redrawComposer(state.conversations.get(conversation));
    toast(t("failed_send", { why: error.message }), { label: t("retry"), run: () => { ui.drafts.delete(conversation); say(conversation, text, kind); } });
  }
}

// --- presence --------------------------------------------------------------------------------------------------------

function presence(frame) {
  if ((frame.type !== "typing" && frame.type !== "viewing") || frame.conversation !== ui.open) return;
  const id = `${frame.type} ${frame.by.id}`;
  if (frame.type === "typing" && !frame.on) ui.people.delete(id);
  else ui.people.set(id, { ...frame, until: Date.now() + (frame.type === "typing" ? 5000 : 30000) });
  drawPresence();
  setTimeout(drawPresence, 5100);
}

function drawPresence() {
  const box = document.querySelector(".presence");
  if (!box) return;
  const here = [...ui.people.values()].filter((p) => p.until > Date.now());
  box.replaceChildren(...here.map((p) => h("span", {}, t(p.type, { name: p.by.name ?? t("customer") }))));
}

// --- keyboard --------------------------------------------------------------------------------------------------------

function shortcuts() {
  const keys = [["j / k", "k_move"], ["Enter", "k_open"], ["r", "k_reply"], ["n", "k_note"], ["e", "k_resolve"], ["/", "k_search"], ["Esc", "k_back"]];
  const dialog = h("dialog.card", { onclose: () => dialog.remove() }, h("h2", {}, t("shortcuts")),
    h("dl", {}, keys.map(([k, word]) => [h("dt", {}, h("kbd", {}, k)), h("dd", {}, t(word))])), h("form", { method: "dialog" }, h("button.primary", {}, t("close"))));
  document.body.append(dialog);
  dialog.showModal();
}

document.addEventListener("keydown", (e) => {
  if (!state || e.ctrlKey || e.metaKey || e.altKey) return;
  if (e.key === "Escape") { document.activeElement?.blur(); leave(); return; }
  if (e.target.matches("input, textarea, select")) return;
  const rows = [...document.querySelectorAll(".row[data-id]")];
  const at = rows.findIndex((r) => r === document.activeElement || (document.activeElement === document.body && r.dataset.id === ui.open));
  const c = ui.open && state.conversations.get(ui.open);
  const keys = {
    j: () => rows[Math.min(at + 1, rows.length - 1)]?.focus(), k: () => rows[Math.max(at - 1, 0)]?.focus(),
    r: () => c && ((ui.kind = "outbound"), redrawComposer(c)), n: () => c && ((ui.kind = "note"), redrawComposer(c)),
    e: () => c && change(c, { status: c.status === "resolved" ? "open" : "resolved" }),
    "/": () => document.getElementById("search").focus(), "?": shortcuts,
  };
  if (keys[e.key]) { e.preventDefault(); keys[e.key](); }
});

function signOut() { stream.stop(); endSession(); state = null; drawSignIn(); }

setInterval(() => { if (state && !ui.loading) drawList(); }, 30_000);
if (session.get()) start().catch(() => { session.set(null); drawSignIn(); });
else drawSignIn();
