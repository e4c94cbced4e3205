"""The English commands: intents with their carrier phrases, and the rules that fill them."""

from pipeline.corpus.grammar import Language
from pipeline.corpus.lexicon_en import NAMES

_UNITS = """one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen""".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def _number(value: int) -> str:
    if value < 20:
        return _UNITS[value - 1]
    tens, units = divmod(value, 10)
    return _TENS[tens - 2] + (f" {_UNITS[units - 1]}" if units else "")


def _list(text: str) -> list[str]:
    """One pattern of many alternatives."""
    return [" ".join(text.split())]


_ITEMS = _list("""
milk|bread|eggs|butter|apples|bananas|toilet paper|coffee|cheese|onions|tomatoes|potatoes|rice|pasta|chicken|salt|
sugar|flour|olive oil|orange juice|yogurt|carrots|garlic|lettuce|bacon|ground beef|dish soap|paper towels|shampoo|
toothpaste|cat food|dog food|batteries|light bulbs|trash bags|honey|peanut butter|strawberry jam|cereal|oatmeal|
almonds|walnuts|raisins|spinach|broccoli|mushrooms|cucumbers|red peppers|avocados|lemons|limes|grapes|blueberries|
watermelon|pineapple|salmon|tuna|shrimp|sausages|ham|turkey|ice cream|chocolate|cookies|crackers|popcorn|black tea|
sparkling water|vinegar|mustard|ketchup|mayonnaise|soy sauce|cinnamon|vanilla|ginger|parsley|basil|tortillas|beans|
lentils|chickpeas|corn|peas|celery|zucchini|laundry detergent|sponges|diapers|tissues|soap|razors|sunscreen|aspirin|
bandages|birthday candles|wrapping paper|printer paper|envelopes|stamps|charcoal|wine|beer|cream|noodles
""")
_TASKS = _list("""
call the (dentist|doctor|plumber|bank|school|landlord|electrician)|water the (plants|lawn|tomatoes)|
take out the (trash|recycling)|feed the (cat|dog|fish|chickens)|walk the dog|pick up the (kids|laundry|package|cake)|
pay the (rent|electric bill|gas bill|credit card|babysitter)|book (a flight|a haircut|a table|the hotel|train tickets)|
wash the (car|windows|curtains|sheets)|clean the (fridge|oven|gutters|bathroom sink|fish tank)|
renew my (passport|license|library card|gym membership)|buy (flowers|a present|new shoes|concert tickets|a lottery ticket)|
return the (books|ladder|shirt)|fix the (leaking tap|broken chair|squeaky door|flat tire|fence)|
email (my boss|the teacher|the accountant)|finish the (report|presentation|homework|puzzle|tax return)|
back up my (laptop|photos|phone)|take (my medicine|my vitamins|the pills)|change the (oil|sheets|filter|light bulb)|
order (more coffee|printer ink|a pizza|firewood)|practice (piano|guitar|spanish|my speech)|defrost the chicken|
charge the (car|camera|tablet)|iron (my shirt|the tablecloth)|write a thank you note|cancel the subscription|
stretch my legs|drink some water|check the mail|lock the gate|move the car|vacuum the stairs|sharpen the knives|
pack (my suitcase|lunch|for the trip)|meditate|mow the grass|rake the leaves|shovel the snow|sign the permission slip
""")
_EVENTS = _list("""
meeting|dentist appointment|lunch with $first_name|birthday party|yoga class|job interview|doctor's appointment|
piano lesson|coffee with $first_name|soccer practice|conference call|haircut|parent teacher meeting|date|wedding|
team dinner|flight to $city|book club|game night with $first_name|vet appointment|budget review|swimming lesson|
school concert|oil change|dinner with $person|brunch|rehearsal|anniversary dinner|video call with $person|eye exam
""")
_MESSAGES = _list("""
i'm running [a little] late|i'll be there in $minutes|dinner is (ready|in the oven|at $hour)|see you (soon|tomorrow|at $hour)|
can you (pick up|bring|buy) $item|i'm on my way [home]|happy birthday|good luck (today|with the exam)|where are you|
call me (back|later|when you can)|the meeting (was cancelled|starts at $hour|moved to $day)|thank you for $thanks|
i (love|miss) you|don't forget (the keys|the tickets|your umbrella|to $task)|we are out of $item|
are you (free|busy|home) $when|the (train|flight|bus) is delayed|i left my (wallet|glasses|jacket|charger) at (home|work)|
sorry i missed your call|what time (is dinner|are you coming|does it start)|let's (meet|talk|have lunch) $when|
i found your (keys|scarf|hat)|please feed the (cat|dog)|the package (arrived|is here)|save me a seat|
congratulations on the new (job|house|baby)|i'm stuck in traffic|how are you feeling|we won the game
""")
_FACTS = _list("""
how (tall|old|high|big|deep) is (the eiffel tower|mount everest|the grand canyon|the pacific ocean|the moon|big ben)|
how far (away|) is (the moon|mars|the sun|jupiter|$city)|who (invented|discovered) (the telephone|penicillin|gravity|
the light bulb|the piano|electricity|paper|radium|america)|what is the (capital|population|currency|national anthem) of
$country|who (wrote|is the author of) (hamlet|moby dick|frankenstein|don quixote|the odyssey|war and peace)|
how many (calories|carbs|grams of sugar) are in (a banana|an egg|an avocado|a slice of pizza|a donut)|
how do you (spell|pronounce|define) $hard_word|what does $hard_word mean|how many (ounces|grams|cups|teaspoons) are in
a (pound|kilo|gallon|liter|tablespoon)|what is $number (plus|minus|times|divided by) $number|
what (animal|bird|insect|mammal) (lives the longest|runs the fastest|sleeps the most)|why is the (sky blue|sea salty|grass green)|
when was (the french revolution|the first world war|the moon landing|the great fire of london)|
how do i (boil an egg|tie a tie|make pancakes|remove a wine stain|unclog a drain|fold a fitted sheet)|
who was the (first|third|sixteenth|last) (president|emperor|astronaut|queen of england)|
what is the (boiling|freezing|melting) point of (water|gold|iron|mercury|lead)|
how long (does it take to|should i) (cook rice|bake a potato|grill a steak|roast a turkey|hard boil eggs)|
what is the (square root|cube) of $number|convert $number (miles to kilometers|pounds to kilos|inches to centimeters)
""")
_COUNTRIES = """france spain italy germany japan brazil canada mexico india china egypt kenya norway sweden poland greece
turkey peru chile argentina portugal ireland scotland australia thailand vietnam iceland finland hungary cuba""".split()
_HARD_WORDS = """necessary rhythm conscience bureaucracy serendipity embarrass questionnaire entrepreneur mischievous
quinoa ambiguous ephemeral ubiquitous paradox melancholy nostalgia hypothesis chrysanthemum onomatopoeia""".split()
_COLORS = """red|blue|green|warm white|yellow|purple|orange|pink|cool white|turquoise|lavender|violet|crimson|gold|teal|
magenta|indigo|amber|coral|peach""".replace("\n", "").split("|")
_GENRES = _list("""jazz|rock|classical music|pop|blues|country music|hip hop|folk|reggae|soul|disco|opera|techno|
bluegrass|heavy metal|punk|bossa nova|swing|gospel|salsa|flamenco|ambient music|lullabies|polka|movie soundtracks|
sea shanties|piano music|lo fi beats|workout music|dinner music""")

RULES = {
    "item": _ITEMS, "task": _TASKS, "event": _EVENTS, "message": _MESSAGES, "fact": _FACTS, "country": _COUNTRIES,
    "hard_word": _HARD_WORDS, "color": _COLORS, "genre": _GENRES,
    "number": [_number(value) for value in range(2, 100)],
    "percent": [f"{_number(value)} percent" for value in range(5, 100, 5)] + ["one hundred percent", "half"],
    "level": [_number(value) for value in range(1, 11)],
    "degrees": [f"{_number(value)} [degrees]" for value in range(58, 80)] + [f"{_number(v)} degrees" for v in range(16, 27)],
    "minutes": [f"{_number(value)} minutes" for value in (2, 3, 4, 5, 7, 8, 10, 12, 15, 18, 20, 25, 30, 35, 40, 45, 50, 90)],
    "duration": ["$minutes", "$minutes", "(one|an) hour", "(two|three|four|six) hours", "an hour and a half",
                 "half an hour", "(thirty|forty five|ninety) seconds", "one hour and $minutes", "a minute"],
    "hour": [_number(value) for value in range(1, 13)] + ["noon", "midnight"],
    "clock": ["$oclock", "$oclock (thirty|fifteen|forty five|twenty|ten|fifty|oh five|twenty five)",
              "(half|quarter|ten|twenty) past $oclock", "(quarter|ten|five) to $oclock", "$oclock o'clock"],
    "oclock": [_number(value) for value in range(1, 13)],
    "part": ["in the morning", "in the afternoon", "in the evening", "tonight", "tomorrow", "tomorrow morning"],
    "time": ["$clock", "$clock", "$clock $part", "$clock $part", "noon", "$clock on $weekday"],
    "weekday": ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"],
    "month": """january february march april may june july august september october november december""".split(),
    "date": ["$weekday", "next $weekday", "$month $ordinal", "the $ordinal of $month", "tomorrow", "this weekend"],
    "ordinal": """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth fifteenth
                  twentieth thirtieth""".split() + ["twenty first", "twenty fourth"],
    "day": ["today", "tomorrow", "tonight", "this weekend", "on $weekday", "next week", "this afternoon", "this evening"],
    "when": ["tonight", "tomorrow", "on $weekday", "at $hour", "next week", "this afternoon", "later"],
    "thanks": ["dinner", "the flowers", "your help", "the gift", "the ride", "last night", "everything"],
    "person": ["$first_name", "$first_name", "$first_name $surname", "$first_name $surname"],
    "contact": ["$person", "$person", "$person", "$person", "$person", "(mom|dad|grandma|grandpa)",
                "my (wife|husband|sister|brother|boss|neighbor|daughter|son|uncle|cousin)", "(doctor|professor|aunt) $surname"],
    "device": ["$appliance", "$room $appliance", "$room $appliance", "$room (light|lights|lights|heating|blinds|curtains|outlet)"],
    "dimmable": ["lights", "$room lights", "$room lights", "$room (lamp|light|ceiling light)", "reading lamp"],
    "place": ["$city", "$city", "the (airport|train station|hospital|library|museum|stadium|beach|zoo|university|town hall)",
              "the nearest (pharmacy|gas station|supermarket|bakery|bank|post office|coffee shop|restaurant|hotel)",
              "(home|work)", "$first_name's (house|place|office)"],
    "list": ["shopping", "grocery", "grocery", "party", "packing", "wish"],
    "door": ["front door", "back door", "garage door", "side gate", "$room door", "$room window", "car"],
    "topic": ["sports", "business", "technology", "politics", "science", "weather", "local", "health", "entertainment",
              "football", "travel", "climate", "space", "stock market", "election"],
    "kind": ["playlist", "mix", "station"],
    "polite": ["please", "please", "thanks", "for me", "right now", "would you"],
    "ask": ["can you", "could you", "please", "i want you to", "would you", "go ahead and", "i need you to", "hey"],
}

_MUSIC_VERB = "(play|put on|start|i want to hear|let's listen to|shuffle)"

INTENTS: dict[str, tuple[float, list[str]]] = {
    "call": (7, ["[$ask] call {contact}", "call {contact} (on|at) (speaker|her mobile|his mobile|home|work|the office)",
                 "(phone|dial|ring) {contact} [$polite]", "(make|start) a (video call|phone call) (to|with) {contact}",
                 "get {contact} on the (phone|line)", "redial {contact}"]),
    "message": (7, ["(text|message) {contact} {message}", "send a (text|message) to {contact} saying {message}",
                    "tell {contact} {message}", "[$ask] (text|send) {contact} that {message}", "let {contact} know {message}"]),
    "read_messages": (2, ["(read|show|check) my (messages|texts|emails) [from {contact}]", "do i have any (new|unread) (messages|mail) from {contact}",
                          "what did {contact} (say|write|send me) [today]", "any voicemail from {contact}"]),
    "turn_on": (7, ["[$ask] turn on the {device} [$polite]", "turn the {device} on", "(switch|put|power) on the {device}",
                    "switch the {device} on [in $minutes]", "start the {device} [at {time}]"]),
    "turn_off": (7, ["[$ask] turn off the {device} [$polite]", "turn the {device} off [in {duration}]", "(switch|shut) off the {device}",
                     "shut down the {device}", "stop the {device} at {time}", "make sure the {device} is off"]),
    "dim": (4, ["[$ask] (dim|brighten) the {device=dimmable} [to {percent}]", "set the {device=dimmable} to {percent} [brightness]",
                "make the {device=dimmable} (a bit|much|slightly) (brighter|darker|softer)", "(raise|lower) the {device=dimmable} by {percent}"]),
    "color": (3, ["(make|turn|set) the {device=dimmable} {color}", "change the {device=dimmable} [color] to {color}",
                  "[$ask] set the color of the {device=dimmable} to {color}", "i want {color} light in the {room}"]),
    "temperature": (4, ["set the (temperature|thermostat|heating) [in the {room}] to {degrees}", "[$ask] make it {degrees} in the {room}",
                        "(raise|lower) the temperature [in the {room}] by {level} degrees", "it's too (cold|hot|warm|stuffy) in the {room}",
                        "how (warm|cold) is it in the {room}"]),
    "play_artist": (6, [f"{_MUSIC_VERB} [some|something by] {{artist}}", f"[$ask] {_MUSIC_VERB} (songs|music|the new album) by {{artist}}",
                        "play the (latest|first|best) (album|song|record) (by|from) {artist}", "i'm in the mood for {artist}"]),
    "play_song": (5, [f"{_MUSIC_VERB} {{song}}", "play {song} by {artist}", "[$ask] play {song} [in the {room}]",
                      "play the song {song} [again]", "add {song} to my {playlist=genre} playlist"]),
    "play_genre": (4, [f"{_MUSIC_VERB} [some|a little] {{genre}} [in the {{room}}]", "play my {genre} $kind", "(find|play) me some {genre} [$polite]",
                       "play {genre} from the (fifties|sixties|seventies|eighties|nineties) [on shuffle]"]),
    "play_show": (3, ["(play|start|resume|put on) {show}", "play the (latest|next|last) episode of {show}", "tune (in|) to {show} [in the {room}]",
                      "(subscribe to|follow|download) {show}"]),
    "volume": (4, ["[$ask] (turn up|turn down|raise|lower) the volume [in the {room}]", "set the volume to {level} [in the {room}]",
                   "volume {level}", "make (it|the music|the {device}) (louder|quieter) [$polite]", "(mute|unmute) the {device}",
                   "turn the (music|radio|tv) (up|down) (to {level}|by {percent}|a bit|a lot)"]),
    "media_control": (3, ["(skip|repeat|like|save) this (song|track|episode|chapter) [$polite]", "(pause|resume|stop) the (music|song|movie|podcast|audiobook) [in the {room}]",
                          "(next|previous) (song|track|episode|chapter) [$polite]", "(rewind|fast forward|skip ahead) {duration}",
                          "what (song|album) is (this|playing [in the {room}])", "who (sings|wrote|recorded) {song}"]),
    "timer": (6, ["[$ask] (set|start) a timer for {duration}", "set a {duration} timer [for the (pasta|eggs|rice|cake|oven|laundry|tea|pizza)]",
                  "(add|take off) {duration} (to|from) the (timer|pasta timer|oven timer)", "how (much time|long) is left on the (egg|tea|cake|laundry|pasta) timer",
                  "(cancel|pause|restart) the {duration} timer", "count down from {number}", "remind me in {duration}"]),
    "alarm": (5, ["[$ask] set an alarm for {time}", "wake me [up] at {time} [with {genre}]", "(cancel|delete|move) my {time} alarm", "snooze [for {duration}]",
                  "set a (repeating|daily|weekday) alarm for {time}", "is my alarm (set|on) for {time}", "wake me up in {duration}"]),
    "reminder": (6, ["[$ask] remind me to {task} [at {time}]", "remind me (on {date}|tomorrow|at {time}) to {task}", "set a reminder to {task} [in {duration}]",
                     "don't let me forget to {task}", "remind me to {task} when i (get home|leave|get to work)", "remind {contact} to {task}"]),
    "shopping": (6, ["[$ask] add {item} to (my|the) {list} list", "put {item} and {other=item} on the {list} list", "add {item} [and {other=item}]",
                     "we (need|are out of) {item}", "(remove|take|delete) {item} from (my|the) {list} list", "(buy|order) [some|more] {item} [$polite]",
                     "is {item} on (my|the) {list} list"]),
    "todo": (4, ["[$ask] add {task} to my to do list", "put {task} on (my|the) (to do|task|weekend) list", "i (need|have) to {task} [{day}]",
                 "(check off|mark) {task} [as done]", "what's on my to do list for {date}"]),
    "weather": (6, ["what's the (weather|forecast|temperature) [like] in {city} [{day}]", "(will it|is it going to) (rain|snow|be sunny|be windy) [in {city}] {day}",
                    "do i need (an umbrella|a coat|sunscreen|boots) {day}", "how (hot|cold|humid|windy) (is it|will it be) in {city} {day}",
                    "(give me|tell me) the weather for {city}", "when (does|will) the sun (rise|set) in {city}"]),
    "time": (3, ["what time is it [in {city}]", "what's the (time|date) in {city}", "what (day|date) is {date}", "how many (days|weeks|hours) until {date}",
                 "how long until {time}", "what's the time difference (to|with) {city}"]),
    "news": (3, ["[$ask] (read|play|give me) the {topic} news", "what's (new|happening|going on) in {place=topic}", "(play|read) the (latest|top|morning) headlines about {topic}",
                 "any {topic} news from {city}", "what's happening in {city}", "did {team=city} win (yesterday|last night|the game)"]),
    "question": (5, ["{question=fact}", "{question=fact}", "tell me {question=fact}", "(search for|look up|tell me about) {topic=artist}",
                     "(where|how old|who) is {person=artist}"]),
    "route": (4, ["[$ask] (navigate|drive me|take me|get directions|give me directions) to {place}", "how (long|far) (is it|does it take) to (get|drive|walk) to {place}",
                  "how do i get to {place} [by (bus|train|bike|car)]", "what's the traffic like (to|on the way to) {place}",
                  "find (the fastest|a scenic|another) route to {place} [without (tolls|highways|ferries)]", "when is the next (bus|train|flight|ferry) to {place}"]),
    "calendar": (5, ["[$ask] (add|schedule|put) a {event} (on|for) {date} [at {hour}]", "what's on my calendar [for] {date}", "(cancel|move|delete) my {event} on {date}",
                     "when is my [next] {event}", "move my {event} to {time}", "invite {contact} to the {event}", "am i free {day} [at {hour}]"]),
    "scene": (3, ["(activate|start|turn on|set) {scene} [mode|scene] [in the {room}]", "it's {scene} [time]", "(turn off|end|stop) {scene} [$polite]", "run my {scene} routine [at {time}]"]),
    "lock": (3, ["[$ask] (lock|unlock|check) the {door} [$polite]", "is the {door} (locked|open|closed|shut)", "(open|close|shut) the {door} [for {contact}]",
                 "who (opened|unlocked|is at) the {door}", "did (i|{contact}) lock the {door}"]),
    "vacuum": (2, ["(vacuum|mop|clean|sweep) the {room} [floor] [{when}]", "start the (vacuum|robot|mop) in the {room}", "send the (vacuum|robot) (home|to the {room}|back to its dock)"]),
    "camera": (2, ["show [me] the {room} camera [on the {device}]", "is (anyone|somebody|there) in the {room}", "(arm|disarm) the (alarm system|security system) [at {time}]",
                   "(record|take a picture with) the {room} camera"]),
    "translate": (2, ["how do you say {phrase} in {language}", "translate {phrase} (to|into) {language}", "what is {phrase} in {language}"]),
    "help": (2, ["help me (with|find) my (phone|keys|recipe|homework|tablet) [$polite]", "what can you do with the {device}", "tell me a (joke|story|riddle|fun fact) [about {animal}]",
                 "what sound does {animal} make", "flip a coin", "roll (two|three|four) dice", "sing me a song about {animal}", "pick a number between {number} and {other=number}"]),
}  # fmt: skip
RULES |= {
    "phrase": _list("""good morning|thank you very much|where is the bathroom|how much does this cost|nice to meet you|
        i would like a coffee|my name is $first_name|see you tomorrow|i don't understand|excuse me|good night|
        the bill please|happy new year|where do you live|one ticket to $city"""),
    "language": "french spanish german italian japanese portuguese russian chinese arabic dutch swedish greek korean hindi".split(),
    "animal": _list("a cow|a dolphin|an elephant|a fox|penguins|a dinosaur|a pirate|dragons|a whale|a goat|spiders|"
                    "a kangaroo|an owl|monkeys|a donkey|a rooster|unicorns|a hippo"),
}  # fmt: skip

ENGLISH = Language(INTENTS, RULES, NAMES)
