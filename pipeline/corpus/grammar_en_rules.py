"""What fills the slots of the English commands (syntax: `grammar.py`)."""

from pipeline.corpus.grammar import read_rules

_RULES = """
item
    milk | bread | eggs | butter | apples | bananas | toilet paper | coffee | cheese | onions |
        tomatoes | potatoes | rice | pasta | chicken | salt | sugar | flour | olive oil | orange
        juice | yogurt | carrots | garlic | lettuce | bacon | ground beef | dish soap | paper towels
        | shampoo | toothpaste | cat food | dog food | batteries | light bulbs | trash bags | honey
        | peanut butter | strawberry jam | cereal | oatmeal | almonds | walnuts | raisins | spinach
        | broccoli | mushrooms | cucumbers | red peppers | avocados | lemons | limes | grapes |
        blueberries | watermelon | pineapple | salmon | tuna | shrimp | sausages | ham | turkey |
        ice cream | chocolate | cookies | crackers | popcorn | black tea | sparkling water | vinegar
        | mustard | ketchup | mayonnaise | soy sauce | cinnamon | vanilla | ginger | parsley | basil
        | tortillas | beans | lentils | chickpeas | corn | peas | celery | zucchini | laundry
        detergent | sponges | diapers | tissues | soap | razors | sunscreen | aspirin | bandages |
        birthday candles | wrapping paper | printer paper | envelopes | stamps | charcoal | wine |
        beer | cream | noodles
task
    call the (dentist|doctor|plumber|bank|school|landlord|electrician) | water the
        (plants|lawn|tomatoes) | take out the (trash|recycling) | feed the (cat|dog|fish|chickens) |
        walk the dog | pick up the (kids|laundry|package|cake) | pay the (rent|electric bill|gas
        bill|credit card|babysitter) | book (a flight|a haircut|a table|the hotel|train tickets) |
        wash the (car|windows|curtains|sheets) | clean the (fridge|oven|gutters|bathroom sink|fish
        tank) | renew my (passport|license|library card|gym membership) | buy (flowers|a present|new
        shoes|concert tickets|a lottery ticket) | return the (books|ladder|shirt) | fix the (leaking
        tap|broken chair|squeaky door|flat tire|fence) | email (my boss|the teacher|the accountant)
        | finish the (report|presentation|homework|puzzle|tax return) | back up my
        (laptop|photos|phone) | take (my medicine|my vitamins|the pills) | change the
        (oil|sheets|filter|light bulb) | order (more coffee|printer ink|a pizza|firewood) | practice
        (piano|guitar|spanish|my speech) | defrost the chicken | charge the (car|camera|tablet) |
        iron (my shirt|the tablecloth) | write a thank you note | cancel the subscription | stretch
        my legs | drink some water | check the mail | lock the gate | move the car | vacuum the
        stairs | sharpen the knives | pack (my suitcase|lunch|for the trip) | meditate | mow the
        grass | rake the leaves | shovel the snow | sign the permission slip
event
    meeting | dentist appointment | lunch with $first_name | birthday party | yoga class | job
        interview | doctor's appointment | piano lesson | coffee with $first_name | soccer practice
        | conference call | haircut | parent teacher meeting | date | wedding | team dinner | flight
        to $city | book club | game night with $first_name | vet appointment | budget review |
        swimming lesson | school concert | oil change | dinner with $person | brunch | rehearsal |
        anniversary dinner | video call with $person | eye exam
message
    i'm running [a little] late | i'll be there in $minutes | dinner is (ready|in the oven|at $hour)
        | see you (soon|tomorrow|at $hour) | can you (pick up|bring|buy) $item | i'm on my way
        [home] | happy birthday | good luck (today|with the exam) | where are you | call me
        (back|later|when you can) | the meeting (was cancelled|starts at $hour|moved to $day) |
        thank you for $thanks | i (love|miss) you | don't forget (the keys|the tickets|your
        umbrella|to $task) | we are out of $item | are you (free|busy|home) $when | the
        (train|flight|bus) is delayed | i left my (wallet|glasses|jacket|charger) at (home|work) |
        sorry i missed your call | what time (is dinner|are you coming|does it start) | let's
        (meet|talk|have lunch) $when | i found your (keys|scarf|hat) | please feed the (cat|dog) |
        the package (arrived|is here) | save me a seat | congratulations on the new (job|house|baby)
        | i'm stuck in traffic | how are you feeling | we won the game
fact
    how (tall|old|high|big|deep) is (the eiffel tower|mount everest|the grand canyon|the pacific
        ocean|the moon|big ben) | how far (away|) is (the moon|mars|the sun|jupiter|$city) | who
        (invented|discovered) (the telephone|penicillin|gravity|the light bulb|the
        piano|electricity|paper|radium|america) | what is the (capital|population|currency|national
        anthem) of $country | who (wrote|is the author of) (hamlet|moby dick|frankenstein|don
        quixote|the odyssey|war and peace) | how many (calories|carbs|grams of sugar) are in (a
        banana|an egg|an avocado|a slice of pizza|a donut) | how do you (spell|pronounce|define)
        $hard_word | what does $hard_word mean | how many (ounces|grams|cups|teaspoons) are in a
        (pound|kilo|gallon|liter|tablespoon) | what is $number (plus|minus|times|divided by) $number
        | what (animal|bird|insect|mammal) (lives the longest|runs the fastest|sleeps the most) |
        why is the (sky blue|sea salty|grass green) | when was (the french revolution|the first
        world war|the moon landing|the great fire of london) | how do i (boil an egg|tie a tie|make
        pancakes|remove a wine stain|unclog a drain|fold a fitted sheet) | who was the
        (first|third|sixteenth|last) (president|emperor|astronaut|queen of england) | what is the
        (boiling|freezing|melting) point of (water|gold|iron|mercury|lead) | how long (does it take
        to|should i) (cook rice|bake a potato|grill a steak|roast a turkey|hard boil eggs) | what is
        the (square root|cube) of $number | convert $number (miles to kilometers|pounds to
        kilos|inches to centimeters)
country
    france | spain | italy | germany | japan | brazil | canada | mexico | india | china | egypt |
        kenya | norway | sweden | poland | greece | turkey | peru | chile | argentina | portugal |
        ireland | scotland | australia | thailand | vietnam | iceland | finland | hungary | cuba
hard_word
    necessary | rhythm | conscience | bureaucracy | serendipity | embarrass | questionnaire |
        entrepreneur | mischievous | quinoa | ambiguous | ephemeral | ubiquitous | paradox |
        melancholy | nostalgia | hypothesis | chrysanthemum | onomatopoeia
color
    red | blue | green | warm white | yellow | purple | orange | pink | cool white | turquoise |
        lavender | violet | crimson | gold | teal | magenta | indigo | amber | coral | peach
genre
    jazz | rock | classical music | pop | blues | country music | hip hop | folk | reggae | soul |
        disco | opera | techno | bluegrass | heavy metal | punk | bossa nova | swing | gospel |
        salsa | flamenco | ambient music | lullabies | polka | movie soundtracks | sea shanties |
        piano music | lo fi beats | workout music | dinner music
duration
    $minutes | $minutes | (one|an) hour | (two|three|four|six) hours | an hour and a half | half an
        hour | (thirty|forty five|ninety) seconds | one hour and $minutes | a minute
clock
    $oclock | $oclock (thirty|fifteen|forty five|twenty|ten|fifty|oh five|twenty five) |
        (half|quarter|ten|twenty) past $oclock | (quarter|ten|five) to $oclock | $oclock o'clock
part
    in the morning | in the afternoon | in the evening | tonight | tomorrow | tomorrow morning
time
    $clock | $clock | $clock $part | $clock $part | noon | $clock on $weekday
weekday
    monday | tuesday | wednesday | thursday | friday | saturday | sunday
month
    january | february | march | april | may | june | july | august | september | october | november
        | december
date
    $weekday | next $weekday | $month $ordinal | the $ordinal of $month | tomorrow | this weekend
ordinal
    first | second | third | fourth | fifth | sixth | seventh | eighth | ninth | tenth | eleventh |
        twelfth | fifteenth | twentieth | thirtieth | twenty first | twenty fourth
day
    today | tomorrow | tonight | this weekend | on $weekday | next week | this afternoon | this
        evening
when
    tonight | tomorrow | on $weekday | at $hour | next week | this afternoon | later
thanks
    dinner | the flowers | your help | the gift | the ride | last night | everything
person
    $first_name | $first_name | $first_name $surname | $first_name $surname
contact
    $person | $person | $person | $person | $person | (mom|dad|grandma|grandpa) | my
        (wife|husband|sister|brother|boss|neighbor|daughter|son|uncle|cousin) |
        (doctor|professor|aunt) $surname
device
    $appliance | $room $appliance | $room $appliance | $room
        (light|lights|lights|heating|outlet)
dimmable
    lights | $room lights | $room lights | $room (lamp|light|ceiling light) | reading lamp
place
    $city | $city | the (airport|train
        station|hospital|library|museum|stadium|beach|zoo|university|town hall) | the nearest
        (pharmacy|gas station|supermarket|bakery|bank|post office|coffee shop|restaurant|hotel) |
        (home|work) | $first_name's (house|place|office)
list
    shopping | grocery | grocery | party | packing | wish
door
    front door | back door | garage door | side gate | $room door | $room window | car
topic
    sports | business | technology | politics | science | weather | local | health | entertainment |
        football | travel | climate | space | stock market | election
kind
    playlist | mix | station
polite
    please | please | thanks | for me | right now | would you
ask
    can you | could you | please | i want you to | would you | go ahead and | i need you to | hey
phrase
    good morning | thank you very much | where is the bathroom | how much does this cost | nice to
        meet you | i would like a coffee | my name is $first_name | see you tomorrow | i don't
        understand | excuse me | good night | the bill please | happy new year | where do you live |
        one ticket to $city
language
    french | spanish | german | italian | japanese | portuguese | russian | chinese | arabic | dutch
        | swedish | greek | korean | hindi
animal
    a cow | a dolphin | an elephant | a fox | penguins | a dinosaur | a pirate | dragons | a whale |
        a goat | spiders | a kangaroo | an owl | monkeys | a donkey | a rooster | unicorns | a hippo
player
    tv | radio | speaker | television | computer | $room (tv|speaker|radio|television) | tablet
"""

_SMALL = """
one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
eighteen nineteen
""".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def _number(value: int) -> str:
    if value < 20:
        return _SMALL[value - 1]
    tens, units = divmod(value, 10)
    return _TENS[tens - 2] + (f" {_SMALL[units - 1]}" if units else "")


def _numbers(*values: int, unit: str = "") -> list[str]:
    return [f"{_number(value)} {unit}".strip() for value in values]


RULES = read_rules(_RULES) | {
    "number": _numbers(*range(2, 100)),
    "level": _numbers(*range(1, 11)),
    "percent": _numbers(*range(5, 100, 5), unit="percent") + ["one hundred percent", "half"],
    "degrees": _numbers(*range(58, 80), unit="[degrees]") + _numbers(*range(16, 27), unit="degrees"),
    "minutes": _numbers(2, 3, 4, 5, 7, 8, 10, 12, 15, 18, 20, 25, 30, 35, 40, 45, 50, 90, unit="minutes"),
    "hour": _numbers(*range(1, 13)) + ["noon", "midnight"],
    "oclock": _numbers(*range(1, 13)),
}
