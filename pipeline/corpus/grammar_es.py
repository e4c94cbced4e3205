"""The Spanish commands: intents with their weights and carrier phrases, and the rules that fill them
(syntax: `grammar.py`).
"""

from pipeline.corpus.grammar import Language, read_intents, read_rules
from pipeline.corpus.lexicon_es import NAMES

_INTENTS = """
call 7
    [$ask] llama a {contact} [$polite]
    llama a {contact} (al móvil|al trabajo|a casa|con el altavoz)
    [$ask] (marca|telefonea) a {contact}
    haz una (videollamada|llamada) a {contact}
    quiero hablar con {contact}
message 6
    (escribe|manda un mensaje) a {contact} [y] dile {message}
    dile a {contact} que {message}
    envía un mensaje a {contact} diciendo {message}
    [$ask] avisa a {contact} (de|) que {message}
read_messages 2
    (lee|enséñame) mis (mensajes|correos) [de {contact}]
    tengo (mensajes|correos) (nuevos|sin leer) [de {contact}]
    qué me ha (escrito|dicho) {contact}
turn_on 7
    [$ask] (enciende|prende|conecta) {device} [$polite]
    pon en marcha {device} [en {duration}]
    quiero que enciendas {device}
turn_off 7
    [$ask] (apaga|desconecta) {device} [$polite]
    apaga {device} (dentro de|en) {duration}
    asegúrate de apagar {device}
dim 4
    [$ask] (baja|sube) {device=light} [al {percent}]
    pon {device=light} al {percent}
    (sube|baja) un poco el brillo de {device=light}
color 3
    pon {device=light} en [color] {color}
    cambia {device=light} a [color] {color}
    [$ask] pon de color {color} {device=light}
temperature 4
    pon la temperatura (de {room}|) a {number=degrees} grados
    (sube|baja) la calefacción {number=level} grados
    hace (mucho frío|mucho calor|fresco) en {room}
    qué temperatura hay en {room}
play_artist 6
    [$ask] (pon|reproduce|toca) (música|canciones|algo|el último disco) de {artist}
    quiero (escuchar|oír) [a] {artist}
    ponme {artist} [en {room}]
play_genre 4
    [$ask] (pon|reproduce) [algo de|un poco de] {genre} [en {room}]
    pon mi lista de {genre}
    busca (música|canciones|emisoras) de {genre}
volume 4
    (sube|baja) el volumen [de {device=player}] [$polite]
    [$ask] pon el volumen al {number=level}
    (silencia|calla) {device=player}
    (más|menos) (alto|fuerte|volumen) [en {room}]
media_control 3
    (pausa|para|continúa|repite) la (canción|música|película|lista) [$polite]
    (siguiente|anterior) (canción|pista|capítulo) [en {room}]
    (adelanta|retrocede|rebobina) {duration}
    quién (canta|ha compuesto) esta canción
timer 6
    [$ask] (pon|inicia) un temporizador de {duration} [para (la pasta|los huevos|el arroz|el pan|el horno)]
    cuánto (tiempo|) (queda|falta) (del temporizador|para el pan|de la lavadora)
    (cancela|pausa|reinicia) el temporizador de {duration}
    avísame (en|dentro de) {duration}
alarm 5
    [$ask] (despiértame|pon una alarma) a {time}
    (cancela|borra|retrasa) la alarma de {time}
    despiértame {day} a {time} [con {genre}]
reminder 6
    [$ask] recuérdame {task} [a {time}]
    recuérdame {day} (que tengo que|) {task}
    no me dejes olvidar {task}
    pon un recordatorio para {task} [dentro de {duration}]
shopping 6
    [$ask] (añade|apunta|pon) {item} (a|en) la lista de la compra
    (necesitamos|hay que comprar|nos hemos quedado sin) {item}
    apunta {item} y {other=item} [$polite]
    (quita|borra|tacha) {item} de la lista [de la compra]
todo 3
    [$ask] añade {task} a mi lista de tareas
    qué tengo pendiente [para] {day}
    tengo que {task} {day}
weather 6
    qué tiempo (hace|va a hacer|hará) en {city} [{day}]
    (lloverá|va a llover|nevará|hará sol) {day} [en {city}]
    necesito (un paraguas|un abrigo|crema solar|botas) {day}
    cuántos grados hay en {city}
    a qué hora (sale|se pone) el sol [en {city}]
time 3
    qué hora es [en {city}]
    (qué día|qué fecha) es {day}
    cuántos (días|meses) faltan para {event=holiday}
news 3
    [$ask] (lee|ponme|dame) las noticias de {topic}
    qué (ha pasado|hay de nuevo) (hoy|) en {topic=city}
    (ponme|lee) los titulares de {topic}
question 4
    cuánto (mide|pesa) {thing}
    quién (inventó|descubrió) {thing=invention}
    quién escribió {thing=book}
    cuál es la (capital|moneda|población|bandera) de {country}
    cuánto (es|son) {number} (más|menos|por|entre) {other=number}
    cómo se (hace|cocina|prepara) {dish}
    qué significa {word}
route 4
    [$ask] llévame (a|hasta) {place}
    cómo (llego|puedo ir) a {place} [en (metro|coche|bici|tren|autobús)]
    cuánto se tarda en llegar a {place}
    cómo está el tráfico (hacia|para ir a) {place}
calendar 5
    qué tengo [en la agenda] {day}
    [$ask] (apunta|añade) {event} {day} [a {time}]
    (cancela|mueve|borra) {event} [de {weekday}]
    cuándo (es|tengo) {event}
    invita a {contact} a {event}
scene 2
    (activa|pon|desactiva) el modo {scene} [en {room}]
    ejecuta la rutina de {scene=routine}
lock 3
    [$ask] (cierra|abre|bloquea) {door} [$polite]
    está (abierta|cerrada) {door}
    quién ha abierto {door}
    (sube|baja) las (persianas|cortinas) de {room}
vacuum 2
    (limpia|aspira|friega|barre) {room} [{day}]
    manda el robot a {room}
translate 2
    cómo se dice {phrase} en {language}
    traduce {phrase} al {language}
help 2
    (cuéntame|dime) (un chiste|un cuento|una adivinanza|algo curioso) [sobre {animal}]
    tira (una moneda|un dado|dos dados)
    ayúdame a encontrar (mi móvil|mis llaves|mis gafas|mi cartera)
    cómo hace {animal}
"""

_RULES = """
ask
    por favor | oye | venga | a ver | ahora | rápido
polite
    por favor | gracias | ahora mismo | ya | cuando puedas
person
    $first_name | $first_name | $first_name $surname | $first_name $surname
contact
    $person | $person | $person | $person | mi
        (madre|padre|hermana|hermano|mujer|marido|jefa|vecino|abuela|primo) | (la doctora|el señor|la
        señora) $surname
message
    (llego|voy a llegar) tarde | ya estoy (en casa|en camino|llegando) | la cena está lista | (nos
        vemos|quedamos) $day | no puedo (ir|hablar) ahora | hay que comprar $item | (el tren|el vuelo|el
        autobús) va con retraso | feliz cumpleaños | estoy en (un atasco|una reunión|el médico) | me he
        dejado (las llaves|el paraguas|la cartera) en (casa|la oficina) | llegaré (dentro de|en)
        $duration | te quiero mucho | la reunión es a $time | salgo a $time
device
    $appliance | $appliance de $room | $appliance de $room | (la luz|las luces|la calefacción|el
        enchufe) de $room
light
    la luz de $room | la lámpara de $room | las luces de $room | la luz
player
    la televisión | la radio | el altavoz | la televisión de $room | el altavoz de $room
color
    rojo | azul | verde | amarillo | blanco | naranja | morado | rosa | turquesa | violeta | dorado |
        malva | celeste
genre
    jazz | rock | música clásica | pop | flamenco | salsa | bolero | tango | rumba | cumbia | reguetón |
        ópera | zarzuela | boleros | música latina | rancheras | blues | música infantil | piano |
        música relajante
duration
    $minutes minutos | $minutes minutos | media hora | una hora | (dos|tres|cuatro) horas | una hora y
        media | (treinta|cuarenta y cinco|noventa) segundos | un minuto | un cuarto de hora
minutes
    dos | tres | cinco | seis | siete | ocho | diez | doce | quince | dieciocho | veinte | veinticinco |
        treinta | cuarenta | cincuenta
time
    $hour | $hour | $hour y (media|cuarto|diez|veinte|cinco|veinticinco) | $hour menos
        (cuarto|diez|veinte|cinco) | $hour de la (mañana|tarde|noche)
hour
    la una | las (dos|tres|cuatro|cinco|seis|siete|ocho|nueve|diez|once|doce)
weekday
    el (lunes|martes|miércoles|jueves|viernes|sábado|domingo)
day
    hoy | mañana | esta (tarde|noche|semana) | $weekday | pasado mañana | $weekday por la
        (mañana|tarde|noche) | el fin de semana | el $day_number de $month
day_number
    dos | tres | cuatro | cinco | ocho | diez | doce | quince | dieciséis | veinte | veintidós |
        veinticuatro | treinta
month
    enero | febrero | marzo | abril | mayo | junio | julio | agosto | septiembre | octubre | noviembre |
        diciembre
task
    llamar (al médico|al dentista|al banco|al fontanero|a $person) | regar las plantas | sacar (la
        basura|al perro) | pagar (el alquiler|la luz|la factura|el seguro) | recoger (a los niños|el
        paquete|la ropa) | lavar (el coche|los platos|las cortinas) | comprar (flores|un regalo|$item) |
        tomar (la pastilla|mis vitaminas) | renovar (el pasaporte|el carné) | terminar (el informe|la
        presentación|los deberes) | planchar la camisa | cambiar (las sábanas|la bombilla|el filtro) |
        dar de comer (al gato|a los peces) | cargar el móvil | reservar (una mesa|el hotel|los billetes)
        | practicar (la guitarra|el inglés) | devolver los libros
item
    leche | pan | huevos | mantequilla | manzanas | plátanos | papel higiénico | café | queso | cebollas
        | tomates | patatas | arroz | pasta | pollo | sal | azúcar | harina | aceite de oliva | zumo de
        naranja | yogures | zanahorias | ajo | lechuga | jamón | carne picada | lavavajillas | champú |
        pasta de dientes | pilas | bombillas | bolsas de basura | miel | mermelada | galletas |
        chocolate | almendras | espinacas | champiñones | pepinos | pimientos | aguacates | limones |
        uvas | fresas | sandía | piña | salmón | atún | gambas | salchichas | helado | vino | cerveza |
        agua con gas | vinagre | mostaza | canela | perejil | lentejas | garbanzos | maíz | guisantes |
        detergente | servilletas | jabón | velas | sellos
event
    (la|una) (reunión|cita con el dentista|clase de yoga|entrevista|comida con $person|cena con
        $person|fiesta) | el (partido|concierto|ensayo|vuelo a $city|examen|cumpleaños de $first_name)
holiday
    navidad | (el verano|la primavera|año nuevo|semana santa) | el cumpleaños de $first_name | las
        vacaciones
topic
    deportes | economía | política | ciencia | tecnología | cultura | fútbol | salud | última hora |
        $city
thing
    la torre eiffel | el monte everest | una ballena | un elefante | la luna | una jirafa | el acueducto
        de segovia
invention
    el teléfono | la bombilla | la penicilina | la imprenta | américa | la radio | el submarino | la
        gravedad
book
    el quijote | hamlet | la odisea | cien años de soledad | frankenstein | la celestina | guerra y paz
country
    francia | españa | italia | alemania | japón | brasil | canadá | méxico | perú | chile | argentina |
        portugal | egipto | noruega | suecia | grecia | turquía | cuba | bolivia | ecuador | india |
        marruecos
number
    dos | tres | siete | nueve | doce | quince | veinte | treinta y dos | cuarenta y cinco | sesenta y
        ocho | setenta | ochenta y seis | noventa y nueve | cien | veintisiete | cincuenta y cuatro
degrees
    dieciséis | diecisiete | dieciocho | diecinueve | veinte | veintiuno | veintidós | veintitrés |
        veinticuatro
level
    dos | tres | cuatro | cinco | seis | siete | ocho | nueve | diez
percent
    (diez|veinte|veinticinco|treinta|cuarenta|cincuenta|sesenta|setenta|setenta y
        cinco|ochenta|noventa|cien) por ciento
dish
    una tortilla de patatas | una paella | el gazpacho | un bizcocho | el arroz con leche | una ensalada
        | las croquetas | un cocido | la salsa de tomate | el pescado al horno
word
    nostalgia | efímero | paradoja | serendipia | melancolía | hipótesis | inefable | ambiguo |
        resiliencia
place
    $city | $city | casa | (la estación|el aeropuerto|el hospital|la playa|el museo|la universidad|el
        estadio) | la (farmacia|gasolinera|panadería|biblioteca) más cercana | el
        (supermercado|banco|restaurante) más cercano | casa de $first_name
scene
    cine | noche | lectura | fiesta | vacaciones | cena | siesta | estudio | relajación | ahorro
routine
    buenos días | buenas noches | llegada a casa | limpieza | trabajo | desayuno
door
    la puerta (principal|trasera|de $room) | la puerta | la ventana de $room | la verja
phrase
    buenos días | muchas gracias | dónde está el baño | cuánto cuesta | encantado de conocerte | la
        cuenta por favor | me llamo $first_name | hasta mañana | no entiendo | feliz año nuevo
language
    inglés | francés | alemán | italiano | portugués | japonés | chino | árabe | ruso | catalán |
        gallego
animal
    una vaca | los delfines | un elefante | un zorro | los pingüinos | un pirata | los dragones | un
        gallo | las arañas | un búho | los monos | un burro | las ranas | un lobo
"""

SPANISH = Language(
    read_intents(_INTENTS),
    read_rules(_RULES),
    NAMES,
    contractions=((" de el ", " del "), (" a el ", " al ")),
)
