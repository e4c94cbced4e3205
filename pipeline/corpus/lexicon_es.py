"""Spanish names, each list ordered from frequent to rare. Artists are invented or long dead; appliances and
rooms come with their article.
"""

from pipeline.corpus.grammar import split_names

FIRST_NAMES = """
maría josé antonio carmen juan ana manuel laura luis marta pedro lucía carlos elena javier isabel pablo
sofía miguel cristina jorge paula alejandro patricia fernando silvia andrés raquel diego beatriz ramón
rosa sergio teresa álvaro pilar rubén julia enrique nuria óscar alicia víctor irene ignacio lorena
joaquín rocío gonzalo ximena hugo valentina mateo camila tomás guadalupe esteban dolores nicolás
consuelo agustín milagros leandro inés evaristo maite
""".split()

SURNAMES = """
garcía gonzález rodríguez fernández lópez martínez sánchez pérez gómez martín jiménez ruiz hernández
díaz moreno álvarez muñoz romero alonso gutiérrez navarro torres domínguez vázquez ramos gil ramírez
serrano blanco molina morales suárez ortega delgado castro ortiz rubio marín sanz iglesias medina
garrido cortés castillo santos lozano guerrero cano prieto méndez cruz calvo gallego vidal echeverría
zubizarreta
""".split()

ARTISTS = """
mozart|los gatos azules|beethoven|la orquesta del puerto|chopin|luna quebrada|vivaldi|
los hermanos tormenta|rosa del alba|falla|tierra mojada|los viernes perdidos|albéniz|café imaginario|
bach|marea baja|granados|la banda del molino|norte y sal|rodrigo|ciudad de papel|sombra verde|
los últimos tranvías|debussy|alma de barro|turina|el circo invisible|piedra y cielo|verdi|las cigarras|
tárrega|noche de hojalata|los ladrones de humo|boccherini|la sonrisa del jueves
"""

CITIES = """
madrid|barcelona|valencia|sevilla|buenos aires|bogotá|lima|santiago|parís|londres|málaga|zaragoza|
bilbao|granada|nueva york|méxico|roma|quito|caracas|montevideo|alicante|córdoba|toledo|salamanca|
la habana|guadalajara|medellín|berlín|lisboa|asunción|la paz|oviedo|santander|pamplona|vigo|cádiz|
rosario|cartagena|monterrey|managua|tegucigalpa|arequipa|valparaíso|cuenca|badajoz
"""

ROOMS = """
la cocina|el salón|el dormitorio|el baño|el pasillo|la oficina|el comedor|el garaje|la terraza|
el jardín|el sótano|la entrada|el despacho|el balcón|el desván|la sala de juegos|la biblioteca|el patio|
la bodega|el cuarto de invitados|la buhardilla|el lavadero|la galería|el invernadero|la despensa
"""

APPLIANCES = """
la luz|la lámpara|la televisión|el ventilador|el aire acondicionado|la radio|la calefacción|la cafetera|
el horno|el lavavajillas|el altavoz|la lavadora|el calentador|la tostadora|el ordenador|la impresora|
la estufa|la aspiradora|el microondas|la secadora|el humidificador|la lámpara de pie|el proyector|
la manta eléctrica|el acuario|el purificador|la fuente|el tocadiscos|la freidora|el deshumidificador
"""

NAMES = {
    "first_name": FIRST_NAMES,
    "surname": SURNAMES,
    "artist": split_names(ARTISTS),
    "city": split_names(CITIES),
    "room": split_names(ROOMS),
    "appliance": split_names(APPLIANCES),
}
