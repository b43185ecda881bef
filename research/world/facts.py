"""What the small world knows: four categories, each with five facts, in two wordings each.

A topic is a variant and a head, such as `desert fox`. A fact's text has slots: `subject`, the
head's own slots, and `variant`, which the first word of the topic fills. Slots and facts come as
(simple, technical). The content is true enough to read well and is no encyclopedia. No sentence
holds a word of the tone lists in `research.world.words`.
"""

from dataclasses import dataclass

Wordings = tuple[str, str]  # simple, technical


@dataclass(frozen=True)
class Category:
    """Topics that share their facts.

    Attributes:
        name: Identifier.
        facts: In the order in which an answer tells them; each starts with `{subject}`.
        variants: First words of topics, with what fills the slot `variant`.
        heads: Last words of topics, with what fills the head's slots.
    """

    name: str
    facts: tuple[Wordings, ...]
    variants: dict[str, Wordings]
    heads: dict[str, dict[str, Wordings]]


ANIMAL = Category(
    name="animal",
    facts=(
        ("{subject} is {kind}.", "{subject} is classified as {kind}."),
        ("{subject} lives in {variant}.", "{subject} inhabits {variant}."),
        ("{subject} likes to eat {food}.", "{subject} primarily consumes {food}."),
        ("{subject} stays safe with {cover}.", "{subject} maintains homeostasis through {cover}."),
        (
            "{subject} keeps nature in good order.",
            "{subject} regulates trophic equilibrium within its ecosystem.",
        ),
    ),
    variants={
        "desert": ("hot dry sand", "arid dune environments"),
        "arctic": ("cold snowy land", "polar tundra environments"),
        "forest": ("dark quiet woods", "temperate woodland environments"),
        "island": ("small bits of land at sea", "isolated insular environments"),
        "mountain": ("high rocky hills", "montane altitudinal environments"),
        "river": ("mud near the water", "riparian corridor environments"),
        "meadow": ("long soft grass", "herbaceous grassland environments"),
        "cave": ("deep dark holes", "subterranean karst environments"),
    },
    heads={
        "fox": {
            "kind": ("a clever animal with a bushy tail", "a medium carnivorous canid"),
            "food": ("mice and eggs", "rodents and opportunistic carrion"),
            "cover": ("a thick red coat", "an insulating pelage"),
        },
        "owl": {
            "kind": ("a quiet bird with big eyes", "a nocturnal raptorial avian"),
            "food": ("mice and bugs", "small vertebrate prey"),
            "cover": ("soft gray feathers", "acoustically damped plumage"),
        },
        "frog": {
            "kind": ("a little jumper with wet skin", "an anuran amphibian"),
            "food": ("flies and worms", "diverse arthropod prey"),
            "cover": ("slimy green skin", "a permeable mucous integument"),
        },
        "bear": {
            "kind": ("a big strong animal with claws", "an omnivorous ursid"),
            "food": ("fish and berries", "salmonids and seasonal fruit biomass"),
            "cover": ("long brown fur", "subcutaneous adipose reserves"),
        },
        "lizard": {
            "kind": ("a fast crawler with a long tail", "an ectothermic squamate"),
            "food": ("bugs and leaves", "invertebrates and foliage"),
            "cover": ("rough dry skin", "keratinized epidermal scales"),
        },
        "beetle": {
            "kind": ("a tiny bug with hard wings", "a coleopteran insect"),
            "food": ("dead leaves and wood", "decomposing cellulose substrates"),
            "cover": ("a hard black shell", "a chitinous exoskeleton"),
        },
    },
)

PLANT = Category(
    name="plant",
    facts=(
        ("{subject} is {kind}.", "{subject} is taxonomically {kind}."),
        ("{subject} grows in {variant}.", "{subject} colonizes {variant}."),
        ("{subject} drinks rain with {roots}.", "{subject} absorbs moisture via {roots}."),
        ("{subject} makes new plants from {seeds}.", "{subject} propagates through {seeds}."),
        ("{subject} gives us clean air.", "{subject} sequesters atmospheric carbon."),
    ),
    variants={
        "tropical": ("hot lands with lots of rain", "humid equatorial biomes"),
        "alpine": ("thin soil on cold hills", "subnival scree habitats"),
        "coastal": ("salty sand by the sea", "saline littoral habitats"),
        "marsh": ("wet black mud", "anoxic wetland sediments"),
        "jungle": ("thick green shade", "stratified rainforest canopies"),
        "prairie": ("wide windy fields", "semiarid steppe biomes"),
        "garden": ("neat beds near houses", "cultivated horticultural plots"),
        "canyon": ("cracks in tall rocks", "lithic fissure habitats"),
    },
    heads={
        "tree": {
            "kind": ("a tall plant with a hard trunk", "a perennial woody phanerophyte"),
            "roots": ("long deep roots", "lateral xylem vessels"),
            "seeds": ("nuts that fall down", "dehiscent fruit dispersal"),
        },
        "fern": {
            "kind": ("a leafy plant with no flowers", "a seedless vascular pteridophyte"),
            "roots": ("thin hairy roots", "rhizomatous root systems"),
            "seeds": ("brown dust under leaves", "haploid sporangial spores"),
        },
        "moss": {
            "kind": ("a soft flat green mat", "a nonvascular bryophyte"),
            "roots": ("its tiny leaves", "capillary rhizoid conduction"),
            "seeds": ("dust in little cups", "gametophytic fragmentation"),
        },
        "cactus": {
            "kind": ("a fat plant with sharp spikes", "a succulent xerophyte"),
            "roots": ("wide flat roots", "superficial root networks"),
            "seeds": ("sweet red fruit", "endozoochorous seed dispersal"),
        },
        "orchid": {
            "kind": ("a pretty flower on a stem", "an epiphytic monocotyledon"),
            "roots": ("roots that hang in the air", "aerial velamen tissue"),
            "seeds": ("seeds as small as dust", "mycorrhizal seed germination"),
        },
        "vine": {
            "kind": ("a long plant that climbs up walls", "a twining liana"),
            "roots": ("roots all along its stem", "adventitious nodal roots"),
            "seeds": ("round juicy berries", "vegetative stolon layering"),
        },
    },
)

MACHINE = Category(
    name="machine",
    facts=(
        ("{subject} is {kind}.", "{subject} constitutes {kind}."),
        ("{subject} gets its push from {variant}.", "{subject} derives energy from {variant}."),
        ("{subject} moves with {part}.", "{subject} transmits torque via {part}."),
        ("{subject} is used to {use}.", "{subject} facilitates {use}."),
        ("{subject} saves people hard work.", "{subject} optimizes industrial productivity."),
    ),
    variants={
        "steam": ("boiling hot water", "pressurized vapor expansion"),
        "electric": ("a plug in the wall", "alternating current"),
        "solar": ("bright sun light", "photovoltaic irradiance"),
        "diesel": ("burning thick oil", "compression ignition"),
        "hydraulic": ("water pressed in pipes", "incompressible fluid pressure"),
        "wind": ("moving air", "aerodynamic kinetic flux"),
        "magnetic": ("magnets that pull and push", "electromagnetic induction"),
        "nuclear": ("heat from splitting tiny bits", "controlled fission reactions"),
    },
    heads={
        "engine": {
            "kind": ("a thing that makes wheels go", "a rotary propulsion apparatus"),
            "part": ("a rod that goes up and down", "a reciprocating crankshaft assembly"),
            "use": ("drive cars and trains", "vehicular locomotion"),
        },
        "pump": {
            "kind": ("a thing that moves water", "a fluid displacement apparatus"),
            "part": ("a fan in a tube", "a centrifugal impeller assembly"),
            "use": ("bring water up from wells", "groundwater extraction"),
        },
        "crane": {
            "kind": ("a tall arm that lifts things", "a cantilevered hoisting apparatus"),
            "part": ("ropes on round wheels", "a compound pulley assembly"),
            "use": ("lift heavy bricks", "vertical cargo displacement"),
        },
        "drill": {
            "kind": ("a tool that makes holes", "a rotary perforation apparatus"),
            "part": ("a sharp twisted tip", "a helical tungsten bit"),
            "use": ("dig holes in stone", "geological core sampling"),
        },
        "mill": {
            "kind": ("a thing that grinds grain", "a cereal comminution apparatus"),
            "part": ("two big round stones", "a coaxial grindstone assembly"),
            "use": ("make flour for bread", "granular particle reduction"),
        },
        "loom": {
            "kind": ("a frame that makes cloth", "a textile weaving apparatus"),
            "part": ("a stick that flies from side to side", "an automated shuttle mechanism"),
            "use": ("make shirts and blankets", "orthogonal fiber interlacing"),
        },
    },
)

BUILDING = Category(
    name="building",
    facts=(
        ("{subject} is {kind}.", "{subject} functions as {kind}."),
        ("{subject} is built with {variant}.", "{subject} employs {variant}."),
        ("{subject} has {part}.", "{subject} integrates {part}."),
        ("{subject} was built so people could {use}.", "{subject} was engineered for {use}."),
        (
            "{subject} can stand up to bad weather.",
            "{subject} withstands substantial environmental loads.",
        ),
    ),
    variants={
        "brick": ("red blocks of baked mud", "kiln fired masonry units"),
        "granite": ("very hard gray rock", "coarse plutonic aggregate"),
        "marble": ("smooth white stone", "metamorphic calcite slabs"),
        "steel": ("long strong metal bars", "tempered ferrous girders"),
        "concrete": ("wet gray stuff that goes hard", "reinforced cementitious composites"),
        "timber": ("logs cut from trees", "structural softwood trusses"),
        "iron": ("dark heavy metal", "wrought ferritic lattices"),
        "stone": ("rocks from nearby fields", "quarried ashlar masonry"),
    },
    heads={
        "castle": {
            "kind": ("a strong house for a king", "a fortified seigneurial residence"),
            "part": ("thick walls and a gate", "crenellated defensive ramparts"),
            "use": ("hide from an army", "territorial defense"),
        },
        "bridge": {
            "kind": ("a road over water", "an elevated transit structure"),
            "part": ("wide legs in the water", "load bearing abutments"),
            "use": ("walk to the other side", "uninterrupted pedestrian traffic"),
        },
        "temple": {
            "kind": ("a house for prayer", "a consecrated liturgical monument"),
            "part": ("a hall with tall posts", "an ornate columnar peristyle"),
            "use": ("pray and sing", "ceremonial congregation"),
        },
        "tower": {
            "kind": ("a thin house that goes up high", "a vertically dominant structure"),
            "part": ("stairs that go round", "a central spiral staircase"),
            "use": ("see what is far off", "panoramic surveillance"),
        },
        "dam": {
            "kind": ("a wall that holds back water", "a hydrological retention structure"),
            "part": ("doors that let water out", "adjustable spillway sluices"),
            "use": ("keep water for dry days", "reservoir management"),
        },
        "lighthouse": {
            "kind": ("a lamp on a rock by the sea", "a maritime navigational beacon"),
            "part": ("a huge turning light", "a rotating fresnel lens"),
            "use": ("guide ships at night", "nautical hazard signalling"),
        },
    },
)

CATEGORIES: tuple[Category, ...] = (ANIMAL, PLANT, MACHINE, BUILDING)
