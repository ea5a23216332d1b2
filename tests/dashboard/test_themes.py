"""Colours: text can be read on every ground it stands on, and what is loud stays apart for every eye.

Contrast as WCAG 2 defines it, differences as CIEDE2000, and colour-blind eyes after Machado et al. (2009).
"""

from itertools import combinations
from math import atan2, cos, degrees, exp, hypot, radians, sin, sqrt

import pytest
from duraq_dashboard import options
from duraq_dashboard.theme import CURSOR, THEMES, VARIABLES
from textual.color import Color

OWN = [theme for theme in THEMES if not theme.ansi]
ROLES = ("note", "warn", "crit", "flow", "dead")
READABLE = 4.5
APART = 15

EYES = {
    "all colours": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def linear(color):
    values = [part / 255 for part in color.rgb]
    return [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in values]


def contrast(one, other):
    lights = [
        sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear(each), strict=True))
        for each in (one, other)
    ]
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def lab(color, eye):
    seen = [sum(w * v for w, v in zip(row, linear(color), strict=True)) for row in EYES[eye]]
    seen = [min(1, max(0, value)) for value in seen]
    to_xyz = (
        (0.4124564, 0.3575761, 0.1804375),
        (0.2126729, 0.7151522, 0.0721750),
        (0.0193339, 0.1191920, 0.9503041),
    )
    xyz = [sum(w * v for w, v in zip(row, seen, strict=True)) for row in to_xyz]
    x, y, z = (
        value ** (1 / 3) if value > 216 / 24389 else (24389 / 27 * value + 16) / 116
        for value in (part / white for part, white in zip(xyz, (0.95047, 1, 1.08883), strict=True))
    )
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def difference(one, other):
    """CIEDE2000, after Sharma et al. (2005)."""
    (l1, a1, b1), (l2, a2, b2) = one, other
    mean = (hypot(a1, b1) + hypot(a2, b2)) / 2
    g = (1 - sqrt(mean**7 / (mean**7 + 25**7))) / 2
    a1, a2 = a1 * (1 + g), a2 * (1 + g)
    c1, c2 = hypot(a1, b1), hypot(a2, b2)
    h1, h2 = degrees(atan2(b1, a1)) % 360, degrees(atan2(b2, a2)) % 360
    turn = 0 if not c1 * c2 else (h2 - h1 + 180) % 360 - 180
    dl, dc, dh = l2 - l1, c2 - c1, 2 * sqrt(c1 * c2) * sin(radians(turn / 2))
    lm, cm = (l1 + l2) / 2, (c1 + c2) / 2
    hm = h1 + h2 if not c1 * c2 else (h1 + turn / 2) % 360
    t = (
        1
        - 0.17 * cos(radians(hm - 30))
        + 0.24 * cos(radians(2 * hm))
        + 0.32 * cos(radians(3 * hm + 6))
        - 0.20 * cos(radians(4 * hm - 63))
    )
    sl = 1 + 0.015 * (lm - 50) ** 2 / sqrt(20 + (lm - 50) ** 2)
    sc, sh = 1 + 0.045 * cm, 1 + 0.015 * cm * t
    rt = -2 * sqrt(cm**7 / (cm**7 + 25**7)) * sin(radians(60 * exp(-(((hm - 275) / 25) ** 2))))
    return sqrt((dl / sl) ** 2 + (dc / sc) ** 2 + (dh / sh) ** 2 + rt * dc / sc * dh / sh)


def test_the_measure():
    """The differences are those of the reference's table (pairs 1, 7, 15 and 25)."""
    for one, other, expected in (
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, -0.0010, 2.4900), (50, 0.0011, -2.4900), 4.7461),
        ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ):
        assert difference(one, other) == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("theme", OWN, ids=lambda theme: theme.name)
def test_text_can_be_read(theme):
    """Text, and each role, stands out from every ground, that of the cursor among them."""
    names = (theme.background, theme.surface, theme.panel, theme.variables[CURSOR])
    grounds = [Color.parse(ground) for ground in names]
    texts = {"text": theme.foreground} | {role: theme.variables[f"role-{role}"] for role in ROLES}
    weak = {
        (name, ground.hex): round(contrast(Color.parse(text), ground), 2)
        for name, text in texts.items()
        for ground in grounds
        if contrast(Color.parse(text), ground) < READABLE
    }
    assert weak == {}


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize(
    "theme", [theme for theme in OWN if theme.name != "duraq-mono"], ids=lambda theme: theme.name
)
def test_roles_stay_apart(theme, eye):
    """Plain text, a warning and what is critical are told apart by every eye."""
    colors = [theme.foreground, theme.variables["role-warn"], theme.variables["role-crit"]]
    seen = [lab(Color.parse(color), eye) for color in colors]
    near = [round(difference(one, other), 1) for one, other in combinations(seen, 2)]
    assert min(near) >= APART, near


def test_every_theme_has_every_role():
    """Whatever theme is chosen, there is a colour for each role; the names offered are those there are."""
    assert tuple(theme.name for theme in THEMES) == options.THEMES
    for theme in THEMES:
        assert theme.variables.keys() >= VARIABLES.keys()
