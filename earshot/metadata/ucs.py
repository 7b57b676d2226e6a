"""File names of the Universal Category System: `CatID-UserCategory_FXName_CreatorID_SourceID`.

A public domain initiative of sound designers, https://universalcategorysystem.com. A CatID is a
category's short name and its sub-category's, AMBForst. The short names are 85 and hardly change, so
they are listed here; sub-categories are hundreds, grow with every version, and are left to the tags
that carry them in full.
"""

from __future__ import annotations

import re

CATEGORIES = {
    "AIR": "AIR",
    "AERO": "AIRCRAFT",
    "ALRM": "ALARMS",
    "AMB": "AMBIENCE",
    "ANML": "ANIMALS",
    "BEEP": "BEEPS",
    "BELL": "BELLS",
    "BIRD": "BIRDS",
    "BOAT": "BOATS",
    "BLLT": "BULLETS",
    "TOON": "CARTOON",
    "CERM": "CERAMICS",
    "CHAIN": "CHAINS",
    "CHEM": "CHEMICALS",
    "CLOCK": "CLOCKS",
    "CLOTH": "CLOTH",
    "COM": "COMMUNICATIONS",
    "CMPT": "COMPUTERS",
    "CREA": "CREATURES",
    "CRWD": "CROWDS",
    "DSGN": "DESIGNED",
    "DESTR": "DESTRUCTION",
    "DIRT": "DIRT & SAND",
    "DOOR": "DOORS",
    "DRWR": "DRAWERS",
    "ELEC": "ELECTRICITY",
    "EQUIP": "EQUIPMENT",
    "EXPL": "EXPLOSIONS",
    "FART": "FARTS",
    "FGHT": "FIGHT",
    "FIRE": "FIRE",
    "FRWK": "FIREWORKS",
    "FOLY": "FOLEY",
    "FOOD": "FOOD & DRINK",
    "FEET": "FOOTSTEPS",
    "GAME": "GAMES",
    "GEO": "GEOTHERMAL",
    "GLAS": "GLASS",
    "GORE": "GORE",
    "GUN": "GUNS",
    "HORN": "HORNS",
    "HMN": "HUMAN",
    "ICE": "ICE",
    "LASR": "LASERS",
    "LETHR": "LEATHER",
    "LIQ": "LIQUID & MUD",
    "MACH": "MACHINES",
    "MAG": "MAGIC",
    "MECH": "MECHANICAL",
    "METL": "METAL",
    "MOTR": "MOTORS",
    "MOVE": "MOVEMENT",
    "MUSC": "MUSICAL",
    "NATD": "NATURAL DISASTER",
    "OBJ": "OBJECTS",
    "PAPR": "PAPER",
    "PLAS": "PLASTIC",
    "RAIN": "RAIN",
    "ROBT": "ROBOTS",
    "ROCK": "ROCKS",
    "ROPE": "ROPE",
    "RUBR": "RUBBER",
    "SCI": "SCIFI",
    "SNOW": "SNOW",
    "SPRT": "SPORTS",
    "SWSH": "SWOOSHES",
    "WHSH": "SWOOSHES",
    "TOOL": "TOOLS",
    "TOY": "TOYS",
    "TRN": "TRAINS",
    "UI": "USER INTERFACE",
    "VEGE": "VEGETATION",
    "VEH": "VEHICLES",
    "VOX": "VOICES",
    "WATR": "WATER",
    "WEAP": "WEAPONS",
    "WTHR": "WEATHER",
    "HAIL": "WEATHER",
    "STORM": "WEATHER",
    "THUN": "WEATHER",
    "WHST": "WHISTLES",
    "WIND": "WIND",
    "WNDW": "WINDOWS",
    "WING": "WINGS",
    "WOOD": "WOOD",
}


def category_of(cat_id: str) -> str:
    """The main category of a CatID; empty for what is none."""
    match = re.fullmatch(r"([A-Z]+?)([A-Z][a-z]+)?", cat_id)
    return CATEGORIES.get(match[1], "") if match else ""


def read_name(stem: str) -> dict[str, list[str]]:
    """What a file's name says if it is a UCS name of at least CatID, FXName and CreatorID."""
    blocks = stem.split("_")
    cat_id, _, user_category = blocks[0].partition("-")
    category = category_of(cat_id)
    if len(blocks) < 3 or not category or not blocks[1].strip():
        return {}
    return {
        "category": [category],
        "fxname": [blocks[1].replace("-", " ")],
        "tags": [user_category],
        "creatorid": [blocks[2]],
    }
