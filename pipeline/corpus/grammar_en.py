"""The English commands: intents with their weights and carrier phrases (syntax: `grammar.py`)."""

from pipeline.corpus.grammar import Language, read_intents
from pipeline.corpus.grammar_en_rules import RULES
from pipeline.corpus.lexicon_en import NAMES

_INTENTS = """
call 7
    [$ask] call {contact}
    call {contact} (on|at) (speaker|her mobile|his mobile|home|work|the office)
    (phone|dial|ring) {contact} [$polite]
    (make|start) a (video call|phone call) (to|with) {contact}
    get {contact} on the (phone|line)
    redial {contact}
message 7
    (text|message) {contact} {message}
    send a (text|message) to {contact} saying {message}
    tell {contact} {message}
    [$ask] (text|send) {contact} that {message}
    let {contact} know {message}
read_messages 2
    (read|show|check) my (messages|texts|emails) [from {contact}]
    do i have any (new|unread) (messages|mail) from {contact}
    what did {contact} (say|write|send me) [today]
    any voicemail from {contact}
turn_on 7
    [$ask] turn on the {device} [$polite]
    turn the {device} on
    (switch|put|power) on the {device}
    switch the {device} on [in $minutes]
    start the {device} [at {time}]
turn_off 7
    [$ask] turn off the {device} [$polite]
    turn the {device} off [in {duration}]
    (switch|shut) off the {device}
    shut down the {device}
    stop the {device} at {time}
    make sure the {device} is off
dim 4
    [$ask] (dim|brighten) the {device=dimmable} [to {percent}]
    set the {device=dimmable} to {percent} [brightness]
    make the {device=dimmable} (a bit|much|slightly) (brighter|darker|softer)
    (raise|lower) the {device=dimmable} by {percent}
color 3
    (make|turn|set) the {device=dimmable} {color}
    change the {device=dimmable} [color] to {color}
    [$ask] set the color of the {device=dimmable} to {color}
    i want {color} light in the {room}
temperature 4
    set the (temperature|thermostat|heating) [in the {room}] to {degrees}
    [$ask] make it {degrees} in the {room}
    (raise|lower) the temperature [in the {room}] by {level} degrees
    it's too (cold|hot|warm|stuffy) in the {room}
    how (warm|cold) is it in the {room}
play_artist 6
    (play|put on|start|i want to hear|let's listen to|shuffle) [some|something by] {artist}
    [$ask] (play|put on|start|i want to hear|let's listen to|shuffle) (songs|music|the new album) by
        {artist}
    play the (latest|first|best) (album|song|record) (by|from) {artist}
    i'm in the mood for {artist}
play_song 5
    (play|put on|start|i want to hear|let's listen to|shuffle) {song}
    play {song} by {artist}
    [$ask] play {song} [in the {room}]
    play the song {song} [again]
    add {song} to my {playlist=genre} playlist
play_genre 4
    (play|put on|start|i want to hear|let's listen to|shuffle) [some|a little] {genre} [in the
        {room}]
    play my {genre} $kind
    (find|play) me some {genre} [$polite]
    play {genre} from the (fifties|sixties|seventies|eighties|nineties) [on shuffle]
play_show 3
    (play|start|resume|put on) {show}
    play the (latest|next|last) episode of {show}
    tune (in|) to {show} [in the {room}]
    (subscribe to|follow|download) {show}
volume 4
    [$ask] (turn up|turn down|raise|lower) the volume [in the {room}]
    set the volume to {level} [in the {room}]
    volume {level}
    make (it|the music|the {device=player}) (louder|quieter) [$polite]
    (mute|unmute) the {device=player}
    turn the (music|radio|tv) (up|down) (to {level}|by {percent}|a bit|a lot)
media_control 3
    (skip|repeat|like|save) this (song|track|episode|chapter) [$polite]
    (pause|resume|stop) the (music|song|movie|podcast|audiobook) [in the {room}]
    (next|previous) (song|track|episode|chapter) [$polite]
    (rewind|fast forward|skip ahead) {duration}
    what (song|album) is (this|playing [in the {room}])
    who (sings|wrote|recorded) {song}
timer 6
    [$ask] (set|start) a timer for {duration}
    set a {duration} timer [for the (pasta|eggs|rice|cake|oven|laundry|tea|pizza)]
    (add|take off) {duration} (to|from) the (timer|pasta timer|oven timer)
    how (much time|long) is left on the (egg|tea|cake|laundry|pasta) timer
    (cancel|pause|restart) the {duration} timer
    count down from {number}
    remind me in {duration}
alarm 5
    [$ask] set an alarm for {time}
    wake me [up] at {time} [with {genre}]
    (cancel|delete|move) my {time} alarm
    snooze [for {duration}]
    set a (repeating|daily|weekday) alarm for {time}
    is my alarm (set|on) for {time}
    wake me up in {duration}
reminder 6
    [$ask] remind me to {task} [at {time}]
    remind me (on {date}|tomorrow|at {time}) to {task}
    set a reminder to {task} [in {duration}]
    don't let me forget to {task}
    remind me to {task} when i (get home|leave|get to work)
    remind {contact} to {task}
shopping 6
    [$ask] add {item} to (my|the) {list} list
    put {item} and {other=item} on the {list} list
    add {item} [and {other=item}]
    we (need|are out of) {item}
    (remove|take|delete) {item} from (my|the) {list} list
    (buy|order) [some|more] {item} [$polite]
    is {item} on (my|the) {list} list
todo 4
    [$ask] add {task} to my to do list
    put {task} on (my|the) (to do|task|weekend) list
    i (need|have) to {task} [{day}]
    (check off|mark) {task} [as done]
    what's on my to do list for {date}
weather 6
    what's the (weather|forecast|temperature) [like] in {city} [{day}]
    (will it|is it going to) (rain|snow|be sunny|be windy) [in {city}] {day}
    do i need (an umbrella|a coat|sunscreen|boots) {day}
    how (hot|cold|humid|windy) (is it|will it be) in {city} {day}
    (give me|tell me) the weather for {city}
    when (does|will) the sun (rise|set) in {city}
time 3
    what time is it [in {city}]
    what's the (time|date) in {city}
    what (day|date) is {date}
    how many (days|weeks|hours) until {date}
    how long until {time}
    what's the time difference (to|with) {city}
news 3
    [$ask] (read|play|give me) the {topic} news
    what's (new|happening|going on) in {topic}
    (play|read) the (latest|top|morning) headlines about {topic}
    any {topic} news from {city}
    what's happening in {city}
    did {team=city} win (yesterday|last night|the game)
question 5
    {question=fact}
    {question=fact}
    tell me {question=fact}
    (search for|look up|tell me about) {topic=artist}
    (where|how old|who) is {person=artist}
route 4
    [$ask] (navigate|drive me|take me|get directions|give me directions) to {place}
    how (long|far) (is it|does it take) to (get|drive|walk) to {place}
    how do i get to {place} [by (bus|train|bike|car)]
    what's the traffic like (to|on the way to) {place}
    find (the fastest|a scenic|another) route to {place} [without (tolls|highways|ferries)]
    when is the next (bus|train|flight|ferry) to {place}
calendar 5
    [$ask] (add|schedule|put) a {event} (on|for) {date} [at {hour}]
    what's on my calendar [for] {date}
    (cancel|move|delete) my {event} on {date}
    when is my [next] {event}
    move my {event} to {time}
    invite {contact} to the {event}
    am i free {day} [at {hour}]
scene 3
    (activate|start|turn on|set) {scene} [mode|scene] [in the {room}]
    it's {scene}
    (turn off|end|stop) {scene} [$polite]
    run my {scene} routine [at {time}]
lock 3
    [$ask] (lock|unlock|check) the {door} [$polite]
    is the {door} (locked|open|closed|shut)
    (open|close|shut) the {door} [for {contact}]
    (open|close|raise|lower) the {room} (blinds|curtains|shades) [{percent}]
    who (opened|unlocked|is at) the {door}
    did (i|{contact}) lock the {door}
vacuum 2
    (vacuum|mop|clean|sweep) the {room} [floor] [{when}]
    start the (vacuum|robot|mop) in the {room}
    send the (vacuum|robot) (home|to the {room}|back to its dock)
camera 2
    show [me] the {room} camera [on the {device=player}]
    is (anyone|somebody|there) in the {room}
    (arm|disarm) the (alarm system|security system) [at {time}]
    (record|take a picture with) the {room} camera
translate 2
    how do you say {phrase} in {language}
    translate {phrase} (to|into) {language}
    what is {phrase} in {language}
help 2
    help me (with|find) my (phone|keys|recipe|homework|tablet) [$polite]
    how does the {device} work
    tell me a (joke|story|riddle|fun fact) [about {animal}]
    what sound does {animal} make
    flip a coin
    roll (two|three|four) dice
    sing me a song about {animal}
    pick a number between {number} and {other=number}
"""

ENGLISH = Language(read_intents(_INTENTS), RULES, NAMES, contractions=((" 's ", "'s "),))
