// Everything the pages say, in three languages. tests/browser checks that no language misses a word.
export const WORDS = {
  es: {
    sign_in: "Entrar", email: "Correo", password: "Contraseña", sign_out: "Salir", demo_logins: "Cuentas de demostración",
    tagline: "Todas tus conversaciones, en vivo", inbox: "Conversaciones", search: "Buscar…", all: "Todas", mine: "Mías",
    open: "Abiertas", resolved: "Resueltas", empty_list: "Nada por aquí todavía", empty_list_hint: "Cuando un cliente escriba, aparecerá aquí al instante.",
    pick: "Elige una conversación", pick_hint: "j y k para moverte, Enter para abrir, ? para ver los atajos.",
    reply: "Responder", note: "Nota interna", send: "Enviar", write_reply: "Escribe una respuesta…", write_note: "Escribe una nota que solo verá tu equipo…",
    resolve: "Resolver", reopen: "Reabrir", assign_me: "Asignarme", assigned_me: "Asignada a mí", snooze: "Posponer 1 h", wake: "Quitar pausa",
    typing: "{name} está escribiendo…", viewing: "{name} también está aquí", customer: "Cliente", you: "Tú",
    offline: "Sin conexión. Reconectando…", failed_send: "No se envió: {why}", retry: "Reintentar", wrong_login: "{why}",
    unsupported: "Mensaje de tipo «{kind}», aún no compatible", st_queued: "En cola", st_sent: "Enviado", st_delivered: "Entregado", st_read: "Leído", st_failed: "Falló", st_uncertain: "Sin confirmar",
    status_open: "abierta", status_pending: "pendiente", status_snoozed: "pospuesta", status_resolved: "resuelta",
    shortcuts: "Atajos", k_move: "Siguiente / anterior", k_open: "Abrir", k_reply: "Responder", k_note: "Nota", k_resolve: "Resolver", k_search: "Buscar", k_back: "Volver", close: "Cerrar", back: "Volver",
    theme: "Cambiar tema", language: "Idioma", more: "Cargar más", new_messages: "Mensajes nuevos", now: "ahora",
  },
  en: {
    sign_in: "Sign in", email: "E-mail", password: "Password", sign_out: "Sign out", demo_logins: "Demo accounts",
    tagline: "All your conversations, live", inbox: "Conversations", search: "Search…", all: "All", mine: "Mine",
    open: "Open", resolved: "Resolved", empty_list: "Nothing here yet", empty_list_hint: "As soon as a customer writes, it appears here.",
    pick: "Pick a conversation", pick_hint: "j and k to move, Enter to open, ? for shortcuts.",
    reply: "Reply", note: "Internal note", send: "Send", write_reply: "Write a reply…", write_note: "Write a note only your team will see…",
    resolve: "Resolve", reopen: "Reopen", assign_me: "Assign to me", assigned_me: "Assigned to me", snooze: "Snooze 1 h", wake: "End snooze",
    typing: "{name} is typing…", viewing: "{name} is here too", customer: "Customer", you: "You",
    offline: "Offline. Reconnecting…", failed_send: "Not sent: {why}", retry: "Retry", wrong_login: "{why}",
    unsupported: "Message of type “{kind}”, not supported yet", st_queued: "Queued", st_sent: "Sent", st_delivered: "Delivered", st_read: "Read", st_failed: "Failed", st_uncertain: "Unconfirmed",
    status_open: "open", status_pending: "pending", status_snoozed: "snoozed", status_resolved: "resolved",
    shortcuts: "Shortcuts", k_move: "Next / previous", k_open: "Open", k_reply: "Reply", k_note: "Note", k_resolve: "Resolve", k_search: "Search", k_back: "Back", close: "Close", back: "Back",
    theme: "Switch theme", language: "Language", more: "Load more", new_messages: "New messages", now: "now",
  },
  pt: {
    sign_in: "Entrar", email: "E-mail", password: "Senha", sign_out: "Sair", demo_logins: "Contas de demonstração",
    tagline: "Todas as suas conversas, ao vivo", inbox: "Conversas", search: "Buscar…", all: "Todas", mine: "Minhas",
    open: "Abertas", resolved: "Resolvidas", empty_list: "Nada por aqui ainda", empty_list_hint: "Quando um cliente escrever, aparecerá aqui na hora.",
    pick: "Escolha uma conversa", pick_hint: "j e k para navegar, Enter para abrir, ? para os atalhos.",
    reply: "Responder", note: "Nota interna", send: "Enviar", write_reply: "Escreva uma resposta…", write_note: "Escreva uma nota que só sua equipe verá…",
    resolve: "Resolver", reopen: "Reabrir", assign_me: "Atribuir a mim", assigned_me: "Atribuída a mim", snooze: "Adiar 1 h", wake: "Encerrar pausa",
    typing: "{name} está digitando…", viewing: "{name} também está aqui", customer: "Cliente", you: "Você",
    offline: "Sem conexão. Reconectando…", failed_send: "Não enviado: {why}", retry: "Tentar de novo", wrong_login: "{why}",
    unsupported: "Mensagem do tipo “{kind}”, ainda não suportada", st_queued: "Na fila", st_sent: "Enviado", st_delivered: "Entregue", st_read: "Lido", st_failed: "Falhou", st_uncertain: "Sem confirmação",
    status_open: "aberta", status_pending: "pendente", status_snoozed: "adiada", status_resolved: "resolvida",
    shortcuts: "Atalhos", k_move: "Próxima / anterior", k_open: "Abrir", k_reply: "Responder", k_note: "Nota", k_resolve: "Resolver", k_search: "Buscar", k_back: "Voltar", close: "Fechar", back: "Voltar",
    theme: "Trocar tema", language: "Idioma", more: "Carregar mais", new_messages: "Novas mensagens", now: "agora",
  },
};

const stored = localStorage.getItem("hub.lang");
export let lang = WORDS[stored] ? stored : (WORDS[navigator.language.slice(0, 2)] ? navigator.language.slice(0, 2) : "es");
export function setLang(next) { lang = next; localStorage.setItem("hub.lang", next); document.documentElement.lang = next; }
document.documentElement.lang = lang;

export function t(key, values = {}) {
  return WORDS[lang][key].replace(/\{(\w+)\}/g, (_, name) => values[name] ?? "");
}

export function ago(iso) {
  const seconds = (Date.now() - Date.parse(iso)) / 1000;
  if (seconds < 60) return t("now");
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return new Date(iso).toLocaleDateString(lang, { day: "numeric", month: "short" });
}

export function clock(iso) { return new Date(iso).toLocaleTimeString(lang, { hour: "2-digit", minute: "2-digit" }); }
