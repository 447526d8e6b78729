"""English."""

from __future__ import annotations

from parley_cache.semantic.languages import stems
from parley_cache.semantic.languages.lexicon import (
    read_antonyms,
    read_lines,
    read_phrases,
    read_synonyms,
    words_of,
)
from parley_cache.semantic.languages.pack import Pack, asked, folds, row, table, words

_COMMON = words(
    "the a an is are was were be do does did of to in on at for with from by and or not what how "
    "why when where who which can could should would will i you my your it this that if have has "
    "there any some me we our they about please tell explain write give make list get best way"
)
_STOP = words(
    "the a an of to in on at for with from by and or is are was were be been being am do does did "
    "doing done have has had i you he she it we they me him her us them my your his its our their "
    "mine yours one's this that these those there here what how why when where who whom whose "
    "which can could should would will shall may might must if whether then than as so such too "
    "also just please kindly some any very really quite actually basically simply exactly "
    "hi hello hey thanks thank ok okay well um uh let's let about into onto out up down off over "
    "under between among during while within inside through across per via against without before "
    "after since until till because but though although yet again ever even still already "
    "myself yourself oneself themselves itself himself herself ourselves other own "
    "s t re ve ll d m no not never none nobody nothing neither nor cannot n't rather instead "
    "every each all both either many much more most less least few only "
    "someone somebody anyone anybody people one ones thing things something anything "
    "how_many how_cost how_far how_high how_fast how_tail why_tail how_old how_big how_large "
    "how_long how_often how_soon how_early how_late how_heavy how_wide how_deep "
    "will shall at_least at_most less_than more_than "
    "go goes going gone want wants need needs like get gets getting got gotten having try tries "
    "trying able possible"
)
# Words that frame a question and say nothing of its matter.
_FRAME = words(
    "way method approach step process procedure question help tell know give show explain find "
    "advice tip suggestion idea recommend suggest recommendation option  "
    "certain particular specific various usual usually typical typically normal normally general "
    "generally currently now consider count possible wonder look command syntax given supposed "
    "expect necessary accord involved actual actually exist available simply easily best ideal "
    "thing lot please alright okay fine unable recommended customary advisable true"
)
# Words that may be missing on one side, where nothing else stands in their place.
_SOFT = _FRAME | words(" ".join(words_of("en_light.txt")))
# Words that make another question of it when they stand on one side alone.
_CRITICAL = words(
    "avoid quit stop finish hide refuse fail deny prevent except exclude free first last early "
    "child kid baby infant newborn toddler teenager teen adult senior elderly pregnant pregnancy "
    "breastfeeding man woman boy girl male female beginner professional expert raw cooked frozen "
    "old new used technical medical manual automatic private public commercial domestic delete "
    "landlord tenant teacher student doctor patient buyer seller employer employee client customer "
    "parent mother father husband wife son daughter friend neighbor guest host owner lender "
    "borrower sender recipient lawyer judge victim boss manager application thinning apply "
    "international indoor outdoor remove lose cancel stop forget ignore"
)
_FOLDS = folds(read_lines("en_folds.txt"))
_MODALS = table(
    """
    can: can able
    must: must required obliged mandatory
    should: should advisable
    """
)
_QUANTIFIERS = table(
    """
    all: all every each always everyone everybody everything
    some: some sometimes
    none: none nobody nothing neither
    only: only
    most: mostly
    at_least: at_least
    at_most: at_most
    less_than: less_than
    more_than: more_than
    few: few
    """
)
_RELATIONS = table(
    """
    from: from
    to: to into onto toward towards
    than: than
    before: before until till
    after: after since
    with: with
    without: without
    instead: instead_of
    by: by
    for: for
    against: against
    of: of
    in: in on at inside within under during via through around across per
    about: about
    between: between
    as: as
    """
)
_ASKS = asked(
    r"""
    \bhow_tail\b => how
    \bwhy_tail\b => why
    ^\W*(is|are|was|were|am|do|does|did|can|should|would|will|must|has|have|had)\b => yes_no
    ^\W*how_cost\b => quantity:cost
    \bhow_many (feet|foot|met(?:er|re)s|miles|km|inches|pounds|kg|mph|degrees)\b => quantity:unit
    \bhow_cost\b => quantity:cost
    \bhow_many\b => quantity:many
    \bhow_far\b => quantity:far
    \bhow_high\b => quantity:high
    \bhow_fast\b => quantity:fast
    \bhow_(old)\b|\bhow old\b => quantity:old
    \bhow_(big|large|heavy|wide|deep)\b => quantity:size
    \bhow_long\b => quantity:long
    \bhow_often\b => quantity:often
    \bhow_late\b => when:late
    \bhow_(soon|early)\b => when:soon
    \bwhy\b|\bwhy_tail\b => why
    \bhow_tail\b => how
    \bwhen\b(?= (do|does|did|is|are|was|were|will|should|can|must|to|best|would|has|have)\b) => when
    ^\W*when\b => when
    \bwhere\b => where
    [,.;:?!"-] (who|whom|whose)\b(?= (is|was|did|should|can|will|are|were|\w+ed|\w+s)\b) => who
    \b(and|or|but|of|to|for|from|with) who(m|se)?\b(?= (\w+ed|\w+s|was|did|can)\b) => who
    \b(out|see|tell|know|determine|decide|matter|explain) who(m|se)?\b => who
    ^\W*(who|whom|whose)\b|\bby who\b => who
    \bhow to\b => how
    \bhow\b => how
    \bwhich\b|\bwhat\b => which
    [,.;:]\s*(is|are|was|were|am|do|does|did|can|should|would|will|must|has|have)\b => yes_no
    """
)
_TENSES = table(
    """
    past: did was were had
    future: will shall
    present: do does is are am
    """
)
_NUMBERS = {
    **{
        word: float(n)
        for n, word in enumerate(
            row(
                "zero _ two three four five six seven eight nine ten eleven twelve thirteen "
                "fourteen fifteen sixteen seventeen eighteen nineteen twenty"
            )
        )
        if word != "_"
    },
    "thirty": 30.0,
    "forty": 40.0,
    "fifty": 50.0,
    "sixty": 60.0,
    "seventy": 70.0,
    "eighty": 80.0,
    "ninety": 90.0,
    "hundred": 100.0,
    "thousand": 1e3,
    "million": 1e6,
    "billion": 1e9,
    "half": 0.5,
    "third": 3.0,
    "fourth": 4.0,
    "fifth": 5.0,
    "sixth": 6.0,
    "seventh": 7.0,
    "eighth": 8.0,
    "ninth": 9.0,
    "tenth": 10.0,
    "second": 2.0,
    "ii": 2.0,
    "iii": 3.0,
    "iv": 4.0,
    "vi": 6.0,
    "vii": 7.0,
    "viii": 8.0,
    "double": 2.0,
    "triple": 3.0,
}
_LANGUAGES = {
    name: name
    for name in row(
        "english french german spanish italian portuguese dutch russian chinese japanese "
        "korean arabic hindi turkish polish swedish danish norwegian finnish greek hebrew"
        " latin czech hungarian romanian ukrainian vietnamese thai mandarin cantonese "
        "persian urdu bengali"
    )
}
_NATIONS = table(
    """
    ireland: irish
    scotland: scottish scots
    wales: welsh
    uk: british
    sweden: swedish swedes
    norway: norwegian
    denmark: danish
    finland: finnish
    iceland: icelandic
    poland: polish
    czechia: czech
    slovakia: slovak
    hungary: hungarian
    romania: romanian
    bulgaria: bulgarian
    greece: greek
    turkey: turkish
    austria: austrian
    belgium: belgian
    portugal: portuguese
    netherlands: dutch
    switzerland: swiss
    ukraine: ukrainian
    russia: russian
    estonia: estonian
    latvia: latvian
    lithuania: lithuanian
    croatia: croatian
    serbia: serbian
    slovenia: slovenian
    albania: albanian
    israel: israeli
    egypt: egyptian
    morocco: moroccan
    tunisia: tunisian
    algeria: algerian
    nigeria: nigerian
    kenya: kenyan
    ethiopia: ethiopian
    africa: african
    ghana: ghanaian
    india: indian
    pakistan: pakistani
    bangladesh: bangladeshi
    nepal: nepalese
    china: chinese
    korea: korean
    japan: japanese
    thailand: thai
    vietnam: vietnamese
    indonesia: indonesian
    malaysia: malaysian
    philippines: filipino
    singapore: singaporean
    taiwan: taiwanese
    mongolia: mongolian
    iran: iranian
    iraq: iraqi
    saudi_arabia: saudi
    lebanon: lebanese
    syria: syrian
    australia: australian
    mexico: mexican
    cuba: cuban
    brazil: brazilian
    argentina: argentinian argentine
    chile: chilean
    peru: peruvian
    colombia: colombian
    venezuela: venezuelan
    canada: canadian canadians
    italy: italian italians
    france: french
    spain: spanish
    germany: german germans
    europe: european europeans
    asia: asian
    california: californian
    texas: texan
    paris: parisian
    vienna: viennese
    rome: roman romans
    """
)
_ENTITIES = {
    **_NATIONS,
    "america": "united_states",
    "american": "united_states",
    "americans": "united_states",
    "usa": "united_states",
    "britain": "uk",
    "nyc": "new_york",
    "postgres": "postgresql",
    "js": "javascript",
    "py": "python",
    "k8s": "kubernetes",
    "golang": "go",
    "ev": "electric_car",
    "evs": "electric_car",
    "macos": "mac",
    "osx": "mac",
    "nodejs": "node",
    "reactjs": "react",
    "vuejs": "vue",
    "nextjs": "next",
    "expressjs": "express",
}
PACK = Pack(
    code="en",
    common=_COMMON,
    stop=_STOP,
    soft=_SOFT - _CRITICAL,
    frame=_FRAME,
    critical=_CRITICAL,
    folds=_FOLDS,
    negators=words("not no never none nobody nothing neither nor without unable n't non"),
    modals=_MODALS,
    quantifiers=_QUANTIFIERS,
    relations=_RELATIONS,
    asks=_ASKS,
    tenses=_TENSES,
    number_words=_NUMBERS,
    languages=_LANGUAGES,
    lemma=stems.english,
    synonyms=read_synonyms("en_synonyms.txt", stems.english),
    antonyms=read_antonyms("en_antonyms.txt", stems.english),
    entities=_ENTITIES,
    phrases=read_phrases("en_synonyms.txt", stems.english, _STOP),
)
