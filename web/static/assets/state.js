// What the inbox knows. Events may come twice or after newer news: merging is by seq and by rank, so both are harmless.
const RANK = { queued: 0, uncertain: 1, sent: 2, delivered: 3, read: 4, failed: 5 };

export class State {
  constructor() { this.conversations = new Map(); this.messages = new Map(); }

  conversation(next) {
    const known = this.conversations.get(next.id);
    if (known && (next.seq < known.seq || (next.seq === known.seq && next.updated_at < known.updated_at))) return;
    this.conversations.set(next.id, next);
  }

  message(next) {
    const thread = this.messages.get(next.conversation);
    if (!thread) return;
    const known = thread.get(next.seq);
    if (known?.status && next.status && RANK[next.status] < RANK[known.status]) return;
    thread.set(next.seq, next);
    if (next.client_id) for (const [seq, item] of thread) if (typeof seq === "string" && item.client_id === next.client_id) thread.delete(seq);
  }

  event(event) {
    if (event.conversation) this.conversation(event.conversation);
    if (event.message) this.message(event.message);
  }

  thread(id) { // messages in order; what is still on its way comes last
    const order = (m) => (m.pending ? Number.MAX_SAFE_INTEGER : m.seq);
    return [...(this.messages.get(id)?.values() ?? [])].sort((a, b) => order(a) - order(b));
  }

  list({ filter, me, query }) {
    const text = query.trim().toLowerCase();
    return [...this.conversations.values()]
      .filter((c) => (filter === "resolved") === (c.status === "resolved") || filter === "all")
      .filter((c) => filter !== "mine" || c.assignee === me.id)
      .filter((c) => !text || `${c.customer.name ?? ""} ${c.last_message?.text ?? ""}`.toLowerCase().includes(text))
      .sort((a, b) => (a.updated_at < b.updated_at ? 1 : a.updated_at > b.updated_at ? -1 : 0));
  }
}
