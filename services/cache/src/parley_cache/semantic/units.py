"""Units of measure and money: which dimension a word measures, and in what."""

from __future__ import annotations

_TABLE = """
length km: km kilometer kilometers kilometre kilometres kilómetro kilómetros kilomètres kilomètre
length mi: mile miles mi milla millas meile meilen
length m: meter meters metre metres mètres mètre metros metro
length ft: foot feet ft
length in: inch inches
length cm: cm centimeter centimeters centimetre centimetres
length mm: mm millimeter millimeters millimetre millimetres
length yd: yard yards yd
mass kg: kg kilo kilos kilogram kilograms kilogramme kilogrammes kilogramm kilogramos
mass g: gram grams gramme grammes gramm gramos
mass mg: mg milligram milligrams
mass mcg: mcg microgram micrograms
mass lb: lb lbs pound pounds livres libras pfund
mass oz: oz ounce ounces
mass t: ton tons tonne tonnes
volume l: l liter liters litre litres litros
volume ml: ml milliliter milliliters millilitre millilitres
volume cl: cl
volume gal: gallon gallons gal
volume qt: quart quarts
volume pt: pint pints
volume cup: cup cups
volume tbsp: tablespoon tablespoons tbsp
volume tsp: teaspoon teaspoons tsp
data bit: bit bits
data byte: byte bytes
data kb: kb kilobyte kilobytes
data mb: mb megabyte megabytes
data gb: gb gigabyte gigabytes
data tb: tb terabyte terabytes
temperature c: celsius centigrade
temperature f: fahrenheit
temperature k: kelvin
money usd: usd dollar dollars dólar dólares
money eur: eur euro euros
money gbp: gbp sterling
money jpy: jpy yen
money inr: inr rupee rupees
money chf: chf franc francs franken
money cny: cny rmb yuan
money cad: cad
money aud: aud
money mxn: mxn peso pesos
money btc: btc bitcoin
speed mph: mph
speed kmh: kmh kph
rate day: per_day
rate week: per_week
rate month: per_month
rate year: per_year
rate hour: per_hour
"""
_TIME = """
time s: seconds second secs sec ms
time min: minutes minute mins min
time h: hours hour hrs hr h
time day: days day
time week: weeks week
time month: months month
time year: years year
clock am: am a.m
clock pm: pm p.m
"""


def _read(listing: str) -> dict[str, tuple[str, str]]:
    found: dict[str, tuple[str, str]] = {}
    for line in listing.strip().splitlines():
        head, _, rest = line.partition(":")
        dimension, _, name = head.partition(" ")
        for word in rest.split():
            found[word] = (dimension, name)
    return found


_ALWAYS = _read(_TABLE)
_AFTER_NUMBER = _read(_TIME)
# Letters that are units only behind a number.
_SHORT = {"l", "m", "g", "t", "k", "h", "in", "am", "min", "mi"}


def unit_of(word: str, *, after_number: bool) -> tuple[str, str] | None:
    """Returns `(dimension, unit)` of a word, or None."""
    if word in _SHORT and not after_number:
        return None
    found = _ALWAYS.get(word)
    if found is None and (after_number or word in ("am", "pm")):
        found = _AFTER_NUMBER.get(word)
    return found
