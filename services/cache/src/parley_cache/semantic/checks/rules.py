"""All rules of the second check, in the order in which their reasons are given.

A rule is a function of two analysed questions and their alignment. It returns a
stable reason why the two differ, or None; it never raises, and it is symmetric.
A rule may stay silent about a difference: what all of them leave open is the score's.
"""

from __future__ import annotations

from collections.abc import Callable

from parley_cache.semantic.alignment import Alignment
from parley_cache.semantic.analysis import Analysis
from parley_cache.semantic.checks import (
    degrees,
    quantities,
    questions,
    rewordings,
    roles,
    small_words,
    word_order,
    wording,
)

Rule = Callable[[Analysis, Analysis, Alignment], str | None]

RULES: tuple[Rule, ...] = (
    wording.languages,
    wording.code,
    wording.quotes,
    quantities.numbers,
    quantities.number_places,
    quantities.units,
    wording.negation,
    wording.antonyms,
    wording.entities,
    wording.modality,
    wording.quantifiers,
    wording.comparatives,
    degrees.degrees,
    questions.asked,
    wording.tense,
    roles.direction,
    wording.conditions,
    wording.particles,
    small_words.small_words,
    small_words.opposite_words,
    roles.persons,
    roles.subject,
    roles.actor,
    roles.possessor,
    roles.bystander,
    roles.belonging,
    roles.voice,
    roles.order,
    word_order.same_words,
    word_order.strict_order,
    rewordings.actors,
    rewordings.extremes,
    rewordings.sooner,
    rewordings.ahead,
    rewordings.counted,
    rewordings.compared,
    rewordings.translated,
    rewordings.subjects,
    rewordings.causes,
    rewordings.sources,
    rewordings.givers,
    rewordings.kinds,
)
