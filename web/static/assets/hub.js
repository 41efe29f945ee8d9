// The hub's API and stream, as one small client. Everything that touches the network is here.
const key = "hub.session";

export const session = {
  get: () => JSON.parse(localStorage.getItem(key) ?? "null"),
  set: (value) => (value ? localStorage.setItem(key, JSON.stringify(value)) : localStorage.removeItem(key)),
};

export class Problem extends Error {
  constructor(document) { super(document.detail ?? document.title ?? "?"); Object.assign(this, document); }
}

async function token(form) {
  const answer = await fetch("/v1/auth/token", { method: "POST", body: new URLSearchParams(form) });
  const body = await answer.json();
  if (!answer.ok) throw new Problem(body);
  session.set(body);
  return body;
}

export const signIn = (username, password) => token({ grant_type: "password", username, password });

// Ends the sign-in on the server too; nobody waits for it.
export function signOut() {
  const token = session.get()?.refresh_token;
  session.set(null);
  if (token) fetch("/v1/auth/revoke", { method: "POST", body: new URLSearchParams({ token }), keepalive: true }).catch(() => {});
}

let refreshing = null; // one refresh at a time: a refresh token works once
const refresh = () => (refreshing ??= token({ grant_type: "refresh_token", refresh_token: session.get()?.refresh_token ?? "" })
  .finally(() => { refreshing = null; }));

export async function api(method, path, body, again = true) {
  const headers = { authorization: `Bearer ${session.get()?.access_token}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  if (answer.status === 401 && again) {
    await refresh();
    return api(method, path, body, false);
  }
  if (answer.status === 204) return null;
  const found = await answer.json();
  if (!answer.ok) throw new Problem(found);
  return found;
}

// One WebSocket that comes back by itself and resumes where it was cut off, so that nothing is missed.
export class Stream {
  constructor({ onEvent, onState, onReload, onFrame }) {
    Object.assign(this, { onEvent, onState, onReload, onFrame });
    this.position = null;
    this.topics = new Set();
    this.delay = 300;
    this.stopped = false;
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    this.socket = new WebSocket(`${scheme}://${location.host}/v1/stream`);
    this.socket.onopen = () => this.send({ type: "auth", token: session.get()?.access_token ?? "" });
    this.socket.onmessage = (message) => this.receive(JSON.parse(message.data));
    this.socket.onclose = (event) => this.closed(event.code);
  }

  receive(frame) {
    if (frame.type === "ready") {
      this.delay = 300;
      this.send({ type: "subscribe", topic: "inbox", position: this.position });
      for (const topic of this.topics) this.send({ type: "subscribe", topic, position: null });
    } else if (frame.type === "subscribed" && frame.topic === "inbox") {
      const first = this.position === null;
      if (first || !frame.recovered) this.position = frame.position;
      this.onState(true);
      if (first || !frame.recovered) this.onReload();
    } else if (frame.type === "event") {
      if (frame.topic === "inbox") { this.position = frame.position; this.onEvent(frame.event); }
    } else this.onFrame(frame);
  }

  async closed(code) {
    this.onState(false);
    if (this.stopped) return;
    if (code === 4401) {
      try { await refresh(); } catch { session.set(null); location.reload(); return; }
    }
    setTimeout(() => this.open(), this.delay * (0.5 + Math.random()));
    this.delay = Math.min(this.delay * 2, 10_000);
  }

  follow(topic) { this.topics = new Set([topic]); this.send({ type: "subscribe", topic, position: null }); }
  unfollow(topic) { this.topics.delete(topic); this.send({ type: "unsubscribe", topic }); }
  send(frame) { if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame)); }
  stop() { this.stopped = true; this.socket.close(); }
}
