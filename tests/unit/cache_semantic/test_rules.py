"""Each rule: a pair that it keeps apart, and a paraphrase that it lets through."""

import pytest

from parley_cache.semantic.calibration import read_calibration
from parley_cache.semantic.verdict import SecondCheck, Verdict

CHECK = SecondCheck(read_calibration())


def judge(a: str, b: str, cosine: float = 0.97) -> Verdict:
    return CHECK.compare(a, b, cosine)


APART = [
    ("number", "Give me 3 ideas", "Give me 5 ideas"),
    ("number", "How do I boil two eggs?", "How do I boil three eggs?"),
    ("number", "Can I use two vouchers on one order?", "Can I use one voucher on two orders?"),
    ("number", "Is Python 3.8 supported?", "Is Python 3.11 supported?"),
    ("unit", "How far is 5 km?", "How far is 5 miles?"),
    ("unit", "Is a 20 kg bag too heavy?", "Is a 20 lb bag too heavy?"),
    ("currency", "Is $50 enough for a gift?", "Is €50 enough for a gift?"),
    ("negation", "Is this plant edible?", "Is this plant not edible?"),
    ("negation", "Can I return it with a receipt?", "Can I return it without a receipt?"),
    ("negation", "Darf ich hier parken?", "Darf ich hier nicht parken?"),
    ("antonym", "How do I enable dark mode?", "How do I disable dark mode?"),
    ("antonym", "Is it safe to eat raw eggs?", "Is it unsafe to eat raw eggs?"),
    ("antonym", "What is a normal pulse?", "What is an abnormal pulse?"),
    ("named_entity", "Who is the mayor of Paris?", "Who is the mayor of Rome?"),
    ("target_language", "Write a poem in French", "Write a poem in German"),
    ("language", "Wie ändere ich mein Passwort?", "How do I change my password?"),
    ("code_identifier", "What does list.append() return?", "What does list.pop() return?"),
    ("code_identifier", "Why does useEffect run?", "Why does useMemo run?"),
    # Code that differs in case or in signs alone.
    ("code_identifier", "What does `if (!ok)` do?", "What does `if (ok)` do?"),
    ("code_identifier", "What is `List` in Python?", "What is `list` in Python?"),
    ("code_identifier", "What does != do in C?", "What does = do in C?"),
    ("code_identifier", "What is [] in JavaScript?", "What is {} in JavaScript?"),
    ("code_identifier", """What prints `echo "$A"`?""", """What prints `echo '$A'`?"""),
    (
        "code_identifier",
        "Is it right?\n```\nfor x in y:\n    f(x)\n    g(x)\n```",
        "Is it right?\n```\nfor x in y:\n    f(x)\ng(x)\n```",
    ),
    ("quoted_text", 'Spell the word "affect"', 'Spell the word "effect"'),
    ("modality", "Can I pay in cash?", "Must I pay in cash?"),
    ("quantifier", "Are all birds able to fly?", "Are some birds able to fly?"),
    ("quantifier", "Use at least 5 words", "Use at most 5 words"),
    ("comparative", "Is it more expensive?", "Is it less expensive?"),
    ("question_word", "When was the bridge built?", "Where was the bridge built?"),
    ("question_word", "Why is my battery empty?", "How long is my battery empty?"),
    ("tense", "Did the store open?", "Will the store open?"),
    ("direction", "How do I fly from Oslo to Rome?", "How do I fly from Rome to Oslo?"),
    ("role_swap", "Is Rust faster than Go?", "Is Go faster than Rust?"),
    ("direction", "Can I eat before surgery?", "Can I eat after surgery?"),
    ("role_swap", "Can my landlord sue me?", "Can I sue my landlord?"),
    ("role_swap", "Did Rome attack Carthage?", "Did Carthage attack Rome?"),
    ("role_swap", "Are spiders insects?", "Are insects spiders?"),
    ("role_swap", "Who beat Napoleon?", "Who did Napoleon beat?"),
    ("role_swap", "How do I teach my daughter?", "How does my daughter teach me?"),
    ("scope", "What pulse is normal?", "What pulse is normal for toddlers?"),
    ("role_swap", "Is it wise to get a child a pet?", "Is it wise for a child to get me a pet?"),
    ("role_swap", "Can I be fired?", "Can I fire someone?"),
    ("antonym", "Can I paint over wallpaper?", "Can I paint under wallpaper?"),
    ("small_word", "Can I watch both films?", "Can I watch the films?"),
    ("comparative", "What is a tall tree in Kenya?", "What is the tallest tree in Kenya?"),
    ("comparative", "Name an old bridge in Prague", "Name the oldest bridge in Prague"),
    ("comparative", "¿Cuál es un río largo de Chile?", "¿Cuál es el río más largo de Chile?"),
    ("comparative", "Was ist ein schneller Zug?", "Was ist der schnellste Zug?"),
    ("named_entity", "How do I sort a list in C#?", "Sorting a list in C, how is it done?"),
    ("named_entity", "How do I sort a list in C++?", "Sorting a list in C, how is it done?"),
    ("named_entity", "How do I sort a list in R?", "How do I sort a list in C?"),
    ("direction", "What gift can I get my aunt?", "What gift can I expect from my aunt?"),
    ("other_words", "How do I mend a shoe?", "How do I mend a glove?"),
    ("other_words", "Should I rent my car?", "Should I rent out my car?"),
    ("modality", "Which vaccines are required?", "Which vaccines are recommended?"),
    ("modality", "Is there a fee for paying late?", "Should there be a fee for paying late?"),
    ("modality", "Do I need a lawyer to sell a house?", "Should I get a lawyer to sell a house?"),
    ("modality", "How many eggs can I eat?", "How many eggs should I eat?"),
    ("tense", "Can I be fired?", "Was I fired?"),
    ("role_swap", "Do cats like being hugged?", "Do cats like hugging?"),
    ("role_swap", "Can I park at my own gate?", "Can someone park at my own gate?"),
    (
        "role_swap",
        "Who is liable if a tree falls on my neighbor's car?",
        "Who is liable if my neighbor's tree falls on my car?",
    ),
    ("role_swap", "How do I fix my bike?", "How do I fix his bike?"),
    ("number", "Can two processes share one port?", "Can one process share two ports?"),
    ("other_words", "Can dogs eat peanut butter?", "Can puppies eat peanut butter?"),
    ("comparative", "Is gold heavier than lead?", "Is gold as heavy as lead?"),
    ("question_word", "How often must I wait to drive?", "When can I drive?"),
    ("small_word", "Can I pay by card?", "Can I pay by card instead?"),
    ("role_swap", "Can a company sue you?", "Can you sue a company?"),
    # A sentence that was built anew, and means another thing.
    ("role_swap", "Why did Acme buy Globex?", "What were the reasons of Globex for buying Acme?"),
    ("role_swap", "Can I lend you my ladder?", "Do you lend ladders?"),
    ("role_swap", "Must I pay my doctor?", "Does the doctor have to pay?"),
    ("role_swap", "Can thirst cause fever?", "Is it possible to get thirsty from a fever?"),
    ("role_swap", "Can I get a rash from the cream?", "I have a rash, can I use the cream?"),
    ("role_swap", "Are all poets teachers?", "Is every teacher also a poet?"),
    ("antonym", "What's the minimum length of a username?", "How long can a username be?"),
    (
        "direction",
        "How do I cancel an order before it is paid?",
        "How do I cancel an order that has already been paid?",
    ),
    ("direction", "Can I cancel after 10 days?", "Is it possible to cancel within 10 days?"),
    ("tense", "Why was my order cancelled?", "For what reason will my order be cancelled?"),
    ("tense", "Have wolves ever lived in Wales?", "Are there wolves living in Wales?"),
    ("direction", "How many pints are in a quart?", "What is the number of quarts in a pint?"),
    ("direction", "Is tin softer than lead?", "Is lead a metal that is softer than tin?"),
    ("direction", 'Translate "bread" from German', 'What is the German for "bread"?'),
    ("number", "How much is 30 miles in kilometers?", "30 kilometers is how many miles?"),
    ("quantifier", "Can dogs swim?", "Can most dogs swim?"),
    ("question_word", "How high is the tower?", "What is the length of the tower?"),
    ("other_words", "How do I get the date in Go?", "How do I format the date in Go?"),
    ("direction", "How long is delivery from Oslo?", "What is the delivery time to Oslo?"),
    (
        "direction",
        "Can I use honey instead of sugar?",
        "Is it possible to substitute sugar for honey?",
    ),
]

TOGETHER = [
    ("How do I sort a list in C++?", "Sorting a list in cpp, how is it done?"),
    ("What colour suits a house plant?", "What color suits a houseplant?"),
    ("How do I send an e-mail over Wi-Fi?", "How can I send an email over wifi?"),
    ("Do I need to sign an NDA?", "Must I sign a non-disclosure agreement?"),
    ("Who won the 2nd race?", "Who won the second race?"),
    ("Wieso ist der Himmel blau?", "Woran liegt es, dass der Himmel blau ist?"),
    ("Pourquoi le ciel est-il bleu ?", "Pour quelle raison le ciel est-il bleu ?"),
    ("How do I reset my router?", "What's the way to reset a router?"),
    ("how can i reset my router", "Could you please tell me how to reset my router?"),
    ("Give me three ideas for lunch", "Give me 3 ideas for lunch"),
    (
        "Can I return an item without a receipt?",
        "Can I return something if I don't have a receipt?",
    ),
    ("Is it possible to freeze rice?", "Can you freeze rice?"),
    ("Do I have to pay tax on a gift?", "Is it necessary to pay tax on a gift?"),
    ("What is the reason the sky is blue?", "Why is the sky blue?"),
    ("How do I convert JSON to CSV?", "How to turn JSON into CSV?"),
    ("In Python, how do I sort a list?", "How do I sort a list in Python?"),
    ("How do I buy a car?", "How can I purchase an automobile?"),
    ("What's the difference between TCP and UDP?", "How do UDP and TCP differ?"),
    ("Was Poland invaded by Germany in 1939?", "Did Germany invade Poland in 1939?"),
    ("What are the side effects of metformin?", "Which adverse effects does metformin have?"),
    ("Wie kann ich mein Passwort ändern?", "Wie ändere ich mein Passwort?"),
    ("Comment puis-je annuler ma commande ?", "Comment annuler ma commande ?"),
    ("¿Cómo puedo cancelar mi pedido?", "¿Cómo cancelo mi pedido?"),
    ("Why isn`t my cat eating?", "Why isn't my cat eating?"),
    ("What is `List ` in Python?", "What is List in Python?"),
    ("Is it 5 km?", "Is it 5km?"),
    ("Is driving barefoot illegal in Ohio?", "Is it against the law to drive barefoot in Ohio?"),
    ("How do I delete my account permanently?", "How do I permanently delete my account?"),
    ("Who painted the Mona Lisa?", "By whom was the Mona Lisa painted?"),
    ("Which countries border Peru?", "What countries share a border with Peru?"),
    ("Who pays, the buyer or the seller?", "Does the seller or the buyer pay?"),
    ("How do I fly to Rome from Oslo?", "What's the best way to fly from Oslo to Rome?"),
    ("How long does delivery to Norway take?", "What is the delivery time to Norway?"),
    ("How do I conect my printer?", "How do I connect my printer?"),
    ("Can I use honey instead of sugar?", "Is it possible to substitute honey for sugar?"),
    ("Do women in Chad vote?", "Do Chad women vote?"),
    ("Can thirst cause fever?", "Is it possible to get a fever from thirst?"),
    ("What's the minimum length of a username?", "How long must a username be at least?"),
    ("Can you clean a pan with a sponge?", "Is it possible to use a sponge for cleaning a pan?"),
    ("How far is 30 miles in kilometers?", "30 miles is how far in kilometres?"),
    ("How high is the tower?", "What is the height of the tower?"),
]


@pytest.mark.parametrize(("reason", "a", "b"), APART)
def test_a_difference_in_meaning_is_told_with_its_reason(reason: str, a: str, b: str) -> None:
    verdict = judge(a, b)

    assert not verdict.same
    assert reason in verdict.reasons


@pytest.mark.parametrize("text", [a for _, a, _ in APART])
def test_a_question_agrees_with_itself_whatever_its_spaces_and_end(text: str) -> None:
    assert judge(text, text).reason == "same_words"
    assert judge(text, f"  {text.rstrip('?')}\n").same


@pytest.mark.parametrize(("a", "b"), TOGETHER)
def test_a_paraphrase_is_let_through(a: str, b: str) -> None:
    check = SecondCheck(read_calibration(), frozenset({"connect", "printer"}))

    verdict = check.compare(a, b, 0.95)

    assert verdict.same, verdict


@pytest.mark.parametrize(("a", "b"), [*TOGETHER, *((a, b) for _, a, b in APART)])
def test_the_verdict_does_not_depend_on_which_question_came_first(a: str, b: str) -> None:
    assert judge(a, b) == judge(b, a)
