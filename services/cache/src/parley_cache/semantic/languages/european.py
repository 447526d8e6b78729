"""German, French, Spanish, Italian, Portuguese and Dutch: closed classes and set phrases only."""

from __future__ import annotations

from parley_cache.semantic.languages import stems
from parley_cache.semantic.languages.lexicon import read_antonyms, read_lines, read_synonyms
from parley_cache.semantic.languages.pack import Pack, asked, folds, row, table, words

_GERMAN = Pack(
    code="de",
    common=words(
        "der die das den dem ein eine einen ich mein meine mir mich wie was wann wo warum wer ist "
        "sind nicht kein kann darf muss soll und oder für mit von nach zu zum zur im in auf bei "
        "es man welche welcher bitte viel viele wieviel ob habe brauche dass meiner meinen meinem "
        "schreibe unter über hat haben am dieses diese"
    ),
    stop=words(
        "der die das den dem des ein eine einen einem einer eines ich du er sie es wir ihr man "
        "mein meine meinen meinem meiner mich mir dich dir sich ist sind war waren sein bin und "
        "oder wie was wann wo warum wer welche welcher welches welchen welchem in im an am auf "
        "bei zu zum zur von vom nach mit für aus um über unter durch während pro ohne gegen vor "
        "hat haben habe hatte wird werden wurde kann darf muss soll sollte können dürfen müssen "
        "bitte doch mal denn nicht kein keine keinen nie ja auch noch schon damit dass wenn ob "
        "so zu viel viele gibt dieses diese dieser diesen möglich mir zurück tun"
    ),
    frame=words(
        "weg wege art möglichkeit möglichkeiten erlaubt verpflichtet thema menschen befehl ist "
        "kannst könntest erklären erkläre sagen sag zeigen zeig nennen nenn gerne genau eigentlich "
        "überhaupt brauche möchte würde wissen tipps tipp rat hilfe weise methode gibt's mal "
        "normalerweise üblicherweise eben einfach bitte lassen"
    ),
    folds=folds(read_lines("de_folds.txt")),
    negators=words("nicht kein keine keinen keinem keiner nie niemals ohne nichts niemand weder"),
    modals=table("can: darf dürfen kann können\nmust: muss müssen\nshould: soll sollte sollen"),
    quantifiers=table("all: alle jeder jede jedes immer\nsome: einige manche\nonly: nur"),
    relations=table(
        "from: von vom aus ab\nto: nach zu zum zur\nbefore: vor\nafter: nachdem\nwith: mit\n"
        "without: ohne\nfor: für\nagainst: gegen\nthan: als\nin: in im auf bei unter an am"
    ),
    asks=asked(
        r"""
        \bwieviel\b => quantity:many
        \bwie lange\b => quantity:long
        \bwie oft\b => quantity:often
        \bwarum\b|\bwieso\b|\bweshalb\b => why
        \bwann\b => when
        \bwo\b|\bwohin\b|\bwoher\b => where
        \bwer\b|\bwem\b|\bwen\b => who
        \bwie\b => how
        \bwelche[rsnm]?\b|\bwas\b => which
        ^\W*(ist|sind|darf|kann|muss|soll|hat|war|gibt)\b => yes_no
        """
    ),
    tenses=table("past: war waren hatte wurde\nfuture: werde wird"),
    number_words={
        word: float(n)
        for n, word in enumerate(
            row("null _ zwei drei vier fünf sechs sieben acht neun zehn elf zwölf")
        )
        if word != "_"
    }
    | {
        "erste": 1.0,
        "ersten": 1.0,
        "zweite": 2.0,
        "zweiten": 2.0,
        "dritte": 3.0,
        "hundert": 100.0,
        "tausend": 1000.0,
    },
    languages={
        "deutsch": "german",
        "englisch": "english",
        "englisches": "english",
        "englischen": "english",
        "französisch": "french",
        "spanisch": "spanish",
        "italienisch": "italian",
        "deutsches": "german",
        "französisches": "french",
    },
    lemma=stems.as_is,
    synonyms=read_synonyms("european_synonyms.txt", stems.as_is),
    antonyms=read_antonyms("european_antonyms.txt", stems.as_is),
)

_FRENCH = Pack(
    code="fr",
    common=words(
        "le la les un une des du de je tu il mon ma mes est sont que qui quel quelle comment "
        "pourquoi quand où combien peut puis et ou pour avec dans sur en au ce cette pas ne à "
        "est-ce l d faire faut quels quelles a"
    ),
    stop=words(
        "le la les un une des du de d l je j tu il elle on nous vous mon ma mes ton sa son ses "
        "est sont était que qu qui quel quelle quels quelles comment pourquoi quand où combien "
        "peut puis peux et ou pour par avec dans sur en au aux ce cette cet ces c ça pas ne n se "
        "s y a à été faire fait faut dois doit suis moi me m t te si sans depuis pendant vers "
        "entre contre avant après plus moins possible"
    ),
    frame=words(
        "façon manière moyen méthode permet phrase donne nom ville droit activité expliquer "
        "explique dire dis simplement simple conseil conseils astuce astuces quoi savoir veux "
        "voudrais aimerais souhaite connaître existe exactement généralement normalement vraiment "
        "reconnaît trouve ils elle elles leur"
    ),
    folds=folds(read_lines("fr_folds.txt")),
    negators=words("pas ne n sans jamais aucun aucune rien personne ni"),
    modals=table(
        "can: peut puis peux pouvoir\nmust: dois doit devoir faut\nshould: devrait devrais"
    ),
    quantifiers=table("all: tous toutes chaque toujours\nsome: certains quelques\nonly: seulement"),
    relations=table(
        "from: de depuis\nto: à vers en au\nbefore: avant\nafter: après\nwith: avec\n"
        "without: sans\nfor: pour\nagainst: contre\nin: dans sur pendant"
    ),
    asks=asked(
        r"""
        \bcombien_temps\b => quantity:long
        \bcombien\w*\b => quantity:many
        \bpourquoi\b => why
        \bquand\b => when
        \boù\b => where
        \bqui\b => who
        \bcomment\b => how
        \bquel(le)?s?\b => which
        \best_ce\b|^\W*(peut|le|la|mon|doit)\b => yes_no
        """
    ),
    tenses=table("past: était étaient\nfuture: sera seront"),
    number_words={
        word: float(n)
        for n, word in enumerate(row("zéro _ deux trois quatre cinq six sept huit neuf dix"))
        if word != "_"
    }
    | {"cent": 100.0, "mille": 1000.0},
    languages={
        "anglais": "english",
        "allemand": "german",
        "français": "french",
        "espagnol": "spanish",
        "italien": "italian",
        "portugais": "portuguese",
    },
    lemma=stems.romance,
    synonyms=read_synonyms("european_synonyms.txt", stems.romance),
    antonyms=read_antonyms("european_antonyms.txt", stems.romance),
)

_SPANISH = Pack(
    code="es",
    common=words(
        "el la los las un una de del que qué cómo cuándo dónde quién cuál cuánto por para con en "
        "es son mi mis se no y o a puedo puede tengo al cuántos haz lo está fue hace necesito "
        "durante entre más"
    ),
    stop=words(
        "el la los las lo un una unos unas de del que qué cómo cuándo dónde quién cuál cuáles "
        "cuánto cuántos cuánta por para con en es son fue está estoy mi mis tu su se no y o a al "
        "puedo puede puedes tengo tiene debe debo hacer hace hago haz falta si desde hasta sobre "
        "sin durante entre contra antes después más menos muy me te le verdad posible ser hay "
        "nunca ni"
    ),
    frame=words(
        "forma formas manera maneras mejor quiero obligado nombre consejo consejos dime explícame "
        "ayúdame dame necesito saber significa favor explicar decir modo método exactamente "
        "normalmente realmente hay existe"
    ),
    folds=folds(read_lines("es_folds.txt")),
    negators=words("no sin nunca ningún ninguna nada nadie ni tampoco"),
    modals=table("can: puedo puede podría\nmust: debe debo\nshould: debería"),
    quantifiers=table("all: todos todas cada siempre\nsome: algunos algunas\nonly: solo sólo"),
    relations=table(
        "from: desde\nof: de del\nto: a al hasta\nbefore: antes\nafter: después\nwith: con\n"
        "without: sin\nfor: para\nagainst: contra\nthan: que\nin: en sobre\nby: por"
    ),
    asks=asked(
        r"""
        \bcuánto_tiempo\b => quantity:long
        \bcuánt[oa]s?\b => quantity:many
        \bpor qué\b => why
        \bcuándo\b => when
        \bdónde\b => where
        \bquién\b => who
        \bcómo\b => how
        \bcuál(es)?\b|\bqué\b => which
        """
    ),
    tenses=table("past: fue era fueron\nfuture: será"),
    number_words={
        word: float(n)
        for n, word in enumerate(row("cero _ dos tres cuatro cinco seis siete ocho nueve diez"))
        if word != "_"
    }
    | {"cien": 100.0, "mil": 1000.0, "primero": 1.5, "segundo": 2.0},
    languages={
        "inglés": "english",
        "alemán": "german",
        "francés": "french",
        "español": "spanish",
        "italiano": "italian",
        "portugués": "portuguese",
    },
    lemma=stems.romance,
    synonyms=read_synonyms("european_synonyms.txt", stems.romance),
    antonyms=read_antonyms("european_antonyms.txt", stems.romance),
)

_ITALIAN = Pack(
    code="it",
    common=words(
        "il lo la i gli le un una di del della che come quando dove chi quale quanto per con in è "
        "sono mio mia si non e o a posso può devo da al faccio cosa qual nel ho hai mi dal dalla "
        "dei del nella ci perché mai quante quanti è ha se"
    ),
    stop=words(
        "il lo la i gli le un uno una di del della dei delle d l che come quando dove chi quale "
        "qual quanto quanti per con in nel nella è sono stata stato mio mia miei tuo suo si non e "
        "o a al ad da dal posso può devo deve faccio fare cosa se senza prima dopo durante tra "
        "contro più meno possibile c ha su sul sulla nei nelle negli alla ai alle dal dalla si"
    ),
    frame=words(
        "modo maniera chiama tempo metodo consigli consiglio mi dici spiegami dimmi vorrei sapere "
        "voglio esattamente normalmente davvero esiste"
    ),
    folds=folds(read_lines("it_folds.txt")),
    negators=words("non senza mai nessun nessuna niente nulla né"),
    modals=table("can: posso può\nmust: devo deve\nshould: dovrei dovrebbe"),
    quantifiers=table("all: tutti tutte ogni sempre\nsome: alcuni alcune\nonly: solo soltanto"),
    relations=table(
        "from: da dal\nof: di del della\nto: a al ad\nbefore: prima\nafter: dopo\nwith: con\n"
        "without: senza\nfor: per\nagainst: contro\nin: in nel nella su"
    ),
    asks=asked(
        r"""
        \bquanto_tempo\b => quantity:long
        \bquant[oiae]\b => quantity:many
        \bperché\b => why
        \bquando\b => when
        \bdove\b => where
        \bchi\b => who
        \bcome\b(?! si chiama) => how
        """
    ),
    tenses=table("past: era fu\nfuture: sarà"),
    number_words={
        word: float(n)
        for n, word in enumerate(row("zero _ due tre quattro cinque sei sette otto nove dieci"))
        if word != "_"
    }
    | {"cento": 100.0, "mille": 1000.0},
    languages={
        "inglese": "english",
        "tedesco": "german",
        "francese": "french",
        "italiano": "italian",
        "spagnolo": "spanish",
    },
    lemma=stems.as_is,
    synonyms=read_synonyms("european_synonyms.txt", stems.as_is),
    antonyms=read_antonyms("european_antonyms.txt", stems.as_is),
)

_PORTUGUESE = Pack(
    code="pt",
    common=words(
        "o a os as um uma de do da que como quando onde quem qual quanto por para com em é são meu "
        "minha se não e ou posso pode devo ao faço eu no na para leva depois antes tenho seu sua "
        "ser dos das pelo pela tem horas foi você meus minhas"
    ),
    stop=words(
        "o a os as um uma de do da dos das que como quando onde quem qual quais quanto quantos "
        "por para com em no na é são foi está meu minha minhas seu sua se não e ou posso pode devo "
        "deve ao à faço fazer eu você até sem sobre entre contra antes depois durante mais menos "
        "possível permitido diz"
    ),
    frame=words(
        "forma formas maneira maneiras melhor nome quero saber queria gostaria dica dicas explicar "
        "dizer modo método exatamente normalmente realmente existe"
    ),
    folds=folds(read_lines("pt_folds.txt")),
    negators=words("não sem nunca nenhum nenhuma nada ninguém nem"),
    modals=table("can: posso pode\nmust: devo deve\nshould: deveria"),
    quantifiers=table("all: todos todas cada sempre\nsome: alguns algumas\nonly: só somente"),
    relations=table(
        "from: desde\nof: de do da dos das\nto: a ao à até para\nbefore: antes\nafter: depois\n"
        "with: com\nwithout: sem\nagainst: contra\nin: em no na sobre\nby: por"
    ),
    asks=asked(
        r"""
        \bquanto_tempo\b => quantity:long
        \bquant[oa]s?\w*\b => quantity:many
        \bpor que\b => why
        \bquando\b => when
        \bonde\b => where
        \bquem\b => who
        \bcomo\b(?! se diz) => how
        """
    ),
    tenses=table("past: foi era foram\nfuture: será"),
    number_words={
        word: float(n)
        for n, word in enumerate(row("zero _ dois três quatro cinco seis sete oito nove dez"))
        if word != "_"
    }
    | {"cem": 100.0, "mil": 1000.0, "primeiro": 1.5, "primeira": 1.5, "segundo": 2.0},
    languages={
        "inglês": "english",
        "alemão": "german",
        "francês": "french",
        "português": "portuguese",
        "espanhol": "spanish",
    },
    lemma=stems.romance,
    synonyms=read_synonyms("european_synonyms.txt", stems.romance),
    antonyms=read_antonyms("european_antonyms.txt", stems.romance),
)

_DUTCH = Pack(
    code="nl",
    common=words(
        "de het een ik mijn hoe wat wanneer waar waarom wie is zijn niet geen kan mag moet en of "
        "voor met van naar om te op bij in"
    ),
    stop=words(
        "de het een ik mijn je jouw hij zij wij hoe wat wanneer waar waarom wie welke is zijn was "
        "niet geen kan mag moet en of voor met van naar om te op bij in aan uit over onder door "
        "zonder tegen na er dat die dit deze als dan ook nog"
    ),
    frame=words(
        "manier manieren wijze tip tips graag wil weten uitleggen vertellen eigenlijk precies "
        "normaal gewoonlijk helpen heb"
    ),
    folds=folds(read_lines("nl_folds.txt")),
    negators=words("niet geen nooit zonder niets niemand"),
    modals=table("can: kan mag\nmust: moet\nshould: zou"),
    quantifiers=table("all: alle elke iedere altijd\nsome: sommige\nonly: alleen"),
    relations=table(
        "from: van uit\nto: naar\nbefore: voordat\nafter: nadat na\nwith: met\nwithout: zonder\n"
        "for: voor\nagainst: tegen\nthan: dan\nin: in op bij"
    ),
    asks=asked(
        r"""
        \bhoe_lang\b => quantity:long
        \bhoeveel\b => quantity:many
        \bwaarom\b => why
        \bwanneer\b => when
        \bwaar\b => where
        \bwie\b => who
        \bhoe\b => how
        """
    ),
    tenses=table("past: was waren\nfuture: zal zullen"),
    number_words={
        word: float(n)
        for n, word in enumerate(row("nul _ twee drie vier vijf zes zeven acht negen tien"))
        if word != "_"
    },
    languages={"engels": "english", "duits": "german", "frans": "french", "nederlands": "dutch"},
    lemma=stems.as_is,
    synonyms=read_synonyms("european_synonyms.txt", stems.as_is),
    antonyms=read_antonyms("european_antonyms.txt", stems.as_is),
)

PACKS = (_GERMAN, _FRENCH, _SPANISH, _ITALIAN, _PORTUGUESE, _DUTCH)
