"""What is said in a chat."""

from random import Random

QUESTIONS = (
    "Hello! Do you ship to Norway?",
    "Hi, my order has not arrived yet.",
    "Is there a discount for schools? 🎓",
    "¿Tienen esto en azul?",
    "Ich hätte gern ein Angebot für 20 Stück.",
    "こんにちは。返品できますか?",
    "Can I change the address of my order?",
    "The page says <error 500> when I pay; what now?",
)
ANSWERS = (
    "Hello, happy to help.",
    "Let me look that up for you.",
    "Could you tell me the number of your order?",
    "Yes, that is possible.",
    "I have just sent you the details.",
)
REPLIES = ("Thank you!", "It is 4711.", "Great, thanks a lot.", "Sí, gracias.", "One more thing, though …")

MOST_PAIRS = 3


def talk(random: Random) -> tuple[tuple[bool, str, int], ...]:
    """Some lines, no two alike: (is by the visitor, text, seconds since the line before)."""
    pairs = random.randint(1, MOST_PAIRS)
    mine = [random.choice(QUESTIONS), *random.sample(REPLIES, pairs - 1)]
    theirs = random.sample(ANSWERS, pairs)
    lines = [line for pair in zip(mine, theirs, strict=True) for line in pair]
    return tuple((place % 2 == 0, text, random.randint(1, 6)) for place, text in enumerate(lines))
