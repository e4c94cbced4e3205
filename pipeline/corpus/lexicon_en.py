"""English names, each list ordered from frequent to rare (`grammar.py` draws them by Zipf's law).

Artists, songs, shows and stations are invented or long dead.
"""

from pipeline.corpus.grammar import split_names

FIRST_NAMES = """
james mary john sarah michael emma david anna robert lisa daniel laura thomas julia peter sophie paul
alice mark karen george helen kevin rachel andrew susan brian olivia simon nicole eric hannah martin
claire oliver amanda jacob diana henry monica lucas teresa samuel rebecca adam victoria patrick
charlotte steven melissa philip natalie nathan vanessa benjamin isabel walter gloria vincent angela
arthur carmen gregory deborah leon miriam harold judith raymond sylvia victor naomi felix bridget hugo
fiona oscar ingrid ivan marta carlos beatrice diego elena marco francesca luigi giulia pierre camille
antoine margaux klaus heidi stefan greta lars astrid nils freya magnus sigrid pavel irina dmitri katya
boris svetlana ahmed fatima omar leila yusuf amira hassan zainab kofi ama kwame abena chidi ngozi emeka
adaeze raj priya arjun anjali vikram deepa sanjay kavita hiroshi yuki kenji sakura takeshi naoko wei mei
jin ling minh lan tuan hoa siobhan niamh cormac declan gwendolyn rhiannon angus morag alistair
wilhelmina ezekiel thaddeus cassius persephone ophelia cornelius
""".split()

SURNAMES = """
smith johnson williams brown jones miller davis wilson anderson taylor thompson moore martinez jackson
harris clark lewis robinson allen wright scott torres nguyen campbell mitchell carter roberts phillips
evans turner parker collins edwards stewart morris murphy rogers morgan peterson cooper reed bailey
kelly howard ramirez watson brooks sanders bennett hughes myers sullivan patterson jenkins coleman
simmons jordan reynolds hamilton graham wallace gibson owens mcdonald kennedy wells vasquez henderson
ferguson nichols hawkins dunn hudson spencer lawson burton fernandez chapman oliveira gallagher mccarthy
donovan obrien schneider weber fischer hoffmann schulz lindqvist johansson eriksson larsen nielsen
petrov ivanov volkov novak kowalski wozniak horvath popescu papadopoulos rossi bianchi esposito moretti
dubois lefebvre moreau fontaine silva carvalho mendoza castillo herrera delgado patel sharma gupta
banerjee chowdhury rahman hussain khalil haddad mansour okafor adeyemi mensah abebe tanaka yamamoto
kobayashi watanabe matsumoto zhang zhao huang fitzgerald mackenzie cholmondeley featherstone abernathy
pemberton vanderberg kirkpatrick wolfenstein quigley thistlewood
""".split()

ARTISTS = """
mozart|beethoven|chopin|bach|vivaldi|the velvet lanterns|silver harbor|debussy|midnight parade|
the paper kites club|schubert|luna reyes|the broken compass|northern lights orchestra|blue cedar|brahms|
ivy and the storm|captain thunder|electric meadow|tchaikovsky|the quiet giants|sugar canyon|
ray holloway|puccini|marble city|the wandering bees|neon tigers|scott joplin|daisy hollow|
the last umbrella|handel|crystal foxes|johnny maple|haydn|the copper kettles|ocean avenue choir|verdi|
pink saturn|stella monroe|the iron sparrows|ravel|velvet thunder|big tom wheeler|liszt|
the lemon brothers|golden hour|mahler|paper moon society|the rusty anchors|amber skye|dvorak|
jazz pilots|the hollow pines|dizzy wilder|rossini|wild orchids|granite falls|the twelve monkeys band|
satie|coral fever|bluebird junction|mendelssohn|rebel lullaby|the salty dogs|nora vale|grieg|
cosmic picnic|the tin soldiers|sunday carousel|berlioz|cactus flower|the glass mountain|otis greenwood|
sibelius|purple avalanche|the lonesome riders|kitty malone|bizet|atomic daisies|the foggy bottom boys|
elgar|ruby vandal|desert phantoms|strauss|the clockwork owls|mango sunrise|holst|marigold parker|
the river saints|shostakovich|emerald youth|polar bear picnic|gershwin|the painted ladies|smoky mirrors|
telemann|lost satellites|the winter coats|rachmaninoff|juniper lane|hungry ghosts|monteverdi|
the magnetic poets|scarlatti|violet hurricane|the brass monkeys|palestrina|tangerine sky|saint saens|
the crooked spoons|buxtehude|orange blossom special|hildegard|the moth collectors|gesualdo|
zanzibar express
"""

SONGS = """
moonlight sonata|ocean drive|summer rain|happy birthday|the four seasons|dancing in the kitchen|
jingle bells|silver lining|the entertainer|rocket to nowhere|blue river|paper planes at dawn|
clair de lune|wild horses running|twelve days of winter|morning coffee|amazing grace|city of glass|
little red wagon|for elise|broken radio|one more sunrise|silent night|lonely highway|electric heart|
swan lake|the wheels on the bus|falling leaves|greensleeves|dust and diamonds|auld lang syne|
hold the door|the blue danube|marching home|ten thousand candles|danny boy|whisper to the wind|
scarborough fair|bolero|chasing fireflies|oh susanna|northbound train|ave maria|under the lemon tree|
home on the range|runaway balloon|twinkle twinkle little star|carry me over|rhapsody in blue|
ghost of a chance|old macdonald|barefoot in the snow|the nutcracker|after the carnival|frere jacques|
velvet skies|ride of the valkyries|honey and thunder|la traviata|seventeen bicycles
"""

CITIES = """
london|paris|new york|chicago|boston|berlin|madrid|rome|tokyo|seattle|denver|dublin|toronto|sydney|
miami|dallas|houston|vienna|lisbon|amsterdam|oslo|prague|atlanta|phoenix|portland|barcelona|munich|
hamburg|moscow|athens|san francisco|los angeles|manchester|edinburgh|glasgow|brussels|zurich|geneva|
stockholm|copenhagen|helsinki|warsaw|budapest|istanbul|cairo|nairobi|lagos|cape town|mumbai|delhi|
bangkok|singapore|hong kong|shanghai|beijing|seoul|osaka|melbourne|auckland|vancouver|montreal|
mexico city|havana|bogota|santiago|buenos aires|cardiff|belfast|liverpool|birmingham|minneapolis|
cleveland|pittsburgh|baltimore|nashville|memphis|new orleans|salt lake city|albuquerque|anchorage|
honolulu|reykjavik|marrakesh|casablanca|addis ababa|johannesburg|kathmandu|colombo|jakarta|manila|hanoi|
ulaanbaatar|tashkent|tbilisi|yerevan|bratislava|ljubljana|sarajevo|tallinn|vilnius|gothenburg|
thessaloniki|saskatoon|poughkeepsie|albany|tallahassee
"""

ROOMS = """
kitchen|living room|bedroom|bathroom|hallway|office|garage|dining room|garden|basement|porch|guest room|
nursery|attic|music room|patio|laundry room|study|balcony|mezzanine|master bedroom|entryway|den|
workshop|pantry|playroom|library|sunroom|cellar|greenhouse|stairway|driveway|mudroom|conservatory|gazebo
"""

APPLIANCES = """
light|lamp|fan|tv|coffee machine|television|heater|air conditioner|radio|ceiling fan|speaker|oven|
dishwasher|washing machine|night light|floor lamp|computer|printer|kettle|dryer|desk lamp|humidifier|
vacuum|chandelier|toaster|projector|sprinkler|space heater|christmas tree|electric blanket|towel warmer|
slow cooker|dehumidifier|fish tank|rice cooker|air purifier|fountain|bread maker|hot tub|lava lamp|
espresso maker|pizza oven|spotlight|aquarium pump|doorbell camera|game console|sewing machine|
robot mower|turntable|yogurt maker
"""

SHOWS = """
morning edition|the daily brief|jazz radio|classic gold|science hour|rock ninety nine|
the history podcast|city traffic radio|bedtime stories|the garden show|world report|mystery theater|
comedy corner|radio riviera|tech talk today|the cooking hour|ocean sounds|the money minute|
night owl radio|country roads|the language lab|planet news|true crime tales|the chess podcast|
forest rain sounds|voices of tomorrow|the football phone in|sixty second philosophy|
baroque at breakfast|tales from the lighthouse|smooth grooves|the parenting desk|astronomy on air|
kids quiz club|the long walk home
"""

SCENES = """
movie night|good morning|bedtime|dinner time|party mode|reading time|relax|away|romantic evening|
work mode|cleaning day|game night|sunrise|nap time|guest mode|holiday|yoga time|thunderstorm|focus|
date night|homework hour|spa day|sleepover|cozy winter|early bird
"""


NAMES = {
    "first_name": FIRST_NAMES,
    "surname": SURNAMES,
    "artist": split_names(ARTISTS),
    "song": split_names(SONGS),
    "city": split_names(CITIES),
    "room": split_names(ROOMS),
    "appliance": split_names(APPLIANCES),
    "show": split_names(SHOWS),
    "scene": split_names(SCENES),
}
