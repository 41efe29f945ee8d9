"""What customers write: short, in three languages, each with a mark that names the message."""

from __future__ import annotations

PHRASES = (
    "Hola, ¿me pueden ayudar con mi pedido? Todavía no ha llegado",
    "Buenos días, quiero saber el precio del envío a Caracas",
    "Gracias por la respuesta, quedo atenta",
    "Hi! I was charged twice for the same order, can you check please?",
    "Where is my parcel? The tracking page has not moved since Monday",
    "Perfect, thank you so much 🙌",
    "Olá, gostaria de trocar o tamanho da camiseta que comprei ontem",
    "O pagamento não foi aprovado, o que eu faço agora?",
    "Necesito factura a nombre de mi empresa, ¿cómo hago?",
    "ok",
)
MARK = "#m"


def text(run: str, conversation: int, number: int) -> str:
    """`… #m<run>:<conversation>:<number>#`"""
    return f"{PHRASES[number % len(PHRASES)]} {MARK}{run}:{conversation}:{number}#"


def find(text: str, mark: str) -> tuple[int, int] | None:
    """(conversation, number) of the mark of this run, or None."""
    at = text.rfind(mark)
    if at < 0:
        return None
    conversation, _, number = text[at + len(mark) : text.index("#", at + len(mark))].partition(":")
    return int(conversation), int(number)
