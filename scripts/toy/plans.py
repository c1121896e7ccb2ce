"""The kinds of objects, and how each kind is put together from parts."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from toy.figures import Part, lump
from toy.shapes import blob, box, ellipse, limb, polygon, wheel
from toy.textures import pick

_QUARTER = math.pi / 2


def person(rng: np.random.Generator) -> list[Part]:
    """Return a walking person: trunk, head, two arms and two legs, and sometimes a skirt or a thing in a hand."""
    shirt, trousers, skin, hair = 0, 1, 2, 3
    stride, build = rng.uniform(0.1, 0.75), rng.uniform(0.75, 1.4)
    trunk = np.array([[-0.07, 0.03], [0.07, 0.03], [0.1, -0.33], [0.05, -0.37], [-0.05, -0.37], [-0.1, -0.33]])
    logo = (box(rng.uniform(0.05, 0.2), rng.uniform(0.04, 0.12), 0.3, (0, rng.uniform(-0.28, -0.1))), hair)
    parts = [
        Part([trunk * (build, 1)], shirt, swing=0.05, beat=2, layer=3, decals=[logo] if rng.random() < 0.4 else [])
    ]
    size = rng.uniform(0.1, 0.14)
    skull = ellipse(size * rng.uniform(0.75, 1), size * 1.25, (0, -size * 0.55))
    locks = blob(rng, size * 1.1, size * rng.uniform(0.5, 1.1), 0.2, (pick(rng, [-0.03, 0, 0.03]), -size))
    parts.append(Part([skull], skin, 0, (0, -0.35), swing=0.1, layer=4, decals=[(locks, hair)]))
    for side, phase, layer in ((-1, 0.0, 0), (1, math.pi, 6)):
        sleeve = pick(rng, [shirt, shirt, skin])
        shoulder = len(parts)
        hang = rng.uniform(-0.3, 0.3) if rng.random() < 0.8 else rng.uniform(-2.8, 2.8)
        joint = (side * 0.085 * build, -0.32)
        parts.append(Part([limb(0.17, 0.065, 0.05)], sleeve, 0, joint, hang, stride * 0.8, 1, phase, layer=layer))
        forearm = [limb(0.18, 0.05, 0.035)]
        parts.append(Part(forearm, skin, shoulder, (0, 0.17), -0.4, 0.4, 1, phase, layer=layer))
        if side == 1 and rng.random() < 0.3:
            thing = lump(rng, *rng.uniform(0.06, 0.3, 2), 5)
            parts.append(replace(thing, parent=len(parts) - 1, joint=(0, 0.18), swing=0.3, layer=7))
    for side, phase, layer in ((-1, math.pi, 1), (1, 0.0, 2)):
        thigh = len(parts)
        joint = (side * 0.035 * build, 0)
        width = 0.1 * build
        parts.append(Part([limb(0.24, width, 0.07)], trousers, 0, joint, 0, stride, 1, phase, layer=layer))
        shoe = (ellipse(0.12, 0.06, (0.015, 0.25)), hair)
        bare = pick(rng, [trousers, trousers, skin])
        knee = (0, 0.23)
        shin = Part([limb(0.25, 0.07, 0.05)], bare, thigh, knee, 0.2, stride * 0.7, 1, phase + 1.3, layer=layer)
        parts.append(replace(shin, decals=[shoe]))
        foot = Part([ellipse(0.11, 0.045, (0.03, 0))], hair, len(parts) - 1, (0, 0.26), swing=0.3, phase=phase)
        parts.append(replace(foot, layer=layer))
    if rng.random() < 0.25:
        skirt = np.array([[-0.09, -0.05], [0.09, -0.05], [0.17, 0.2], [0.0, 0.23], [-0.17, 0.2]]) * (build, 1)
        parts.append(Part([skirt], trousers, 0, (0, 0), swing=0.12, layer=5))
    return parts


def animal(rng: np.random.Generator) -> list[Part]:
    """Return an animal with four legs: trunk, neck, head with ears, and tail."""
    coat, second, dark = 0, 1, 2
    tall, long = rng.uniform(0.15, 0.5), rng.uniform(0.5, 0.9)
    thick = rng.uniform(0.2, 0.42)
    spots = [
        (blob(rng, *rng.uniform(0.08, 0.35, 2), 0.4, rng.uniform(-0.4, 0.4, 2) * (long, thick)), second)
        for _ in range(int(rng.integers(0, 5)))
    ]
    parts = [Part([blob(rng, long, thick, 0.12)], coat, swing=0.05, beat=2, layer=3, decals=spots)]
    rise, neck = rng.uniform(-2.9, -1.2), rng.uniform(0.1, 0.4)
    shoulder = (long * 0.38, -thick * 0.15)
    parts.append(Part([limb(neck, thick * 0.6, thick * 0.4)], coat, 0, shoulder, rise, 0.12, layer=4))
    size = rng.uniform(0.12, 0.22)
    face = np.concatenate([blob(rng, size, size * 0.9, 0.1), ellipse(size * 0.9, size * 0.5, (size * 0.5, size * 0.1))])
    skull = face[_hull(face)]
    eye = (ellipse(size * 0.12, size * 0.12, (size * 0.15, -size * 0.12)), dark)
    snout = (ellipse(size * 0.4, size * 0.4, (size * 0.85, size * 0.1)), pick(rng, [dark, second]))
    parts.append(Part([skull], pick(rng, [coat, second]), 1, (0, neck), -rise, 0.2, 1, 1, layer=5, decals=[eye, snout]))
    ear = np.array([[-0.35, 0], [0.35, 0], [rng.uniform(-0.6, 0.6), -rng.uniform(0.5, 1.6)]]) * size * 0.5
    parts.append(Part([ear], pick(rng, [coat, dark]), 2, (-size * 0.2, -size * 0.3), 0, 0.2, 2, layer=6))
    tail = limb(rng.uniform(0.1, 0.5), rng.uniform(0.03, 0.09), rng.uniform(0.01, 0.12), rng.uniform(-0.3, 0.8))
    parts.append(Part([tail], coat, 0, (-long * 0.45, -thick * 0.2), rng.uniform(0.2, 2.2), 0.4, 2, layer=2))
    stride, width = rng.uniform(0.1, 0.6), rng.uniform(0.05, 0.13)
    for hind in (False, True):
        for near in (False, True):
            phase, layer = rng.uniform(0, 1) + math.pi * (hind ^ near), 4 if near else 0
            joint = (long * (-0.36 if hind else 0.34) + (0.03 if near else 0), thick * 0.2)
            upper = Part([limb(tall * 0.6, width * 1.5, width)], coat, 0, joint, 0, stride, 1, phase, layer=layer)
            parts.append(upper)
            bend = 0.5 if hind else -0.2
            lower = limb(tall * 0.55, width, width * 0.7)
            hue = pick(rng, [coat, coat, dark, second])
            knee = (0, tall * 0.55)
            parts.append(Part([lower], hue, len(parts) - 1, knee, bend, stride * 0.7, 1, phase + 1, layer=layer))
    return parts


def vehicle(rng: np.random.Generator) -> list[Part]:
    """Return a car, van or lorry from the side: body, cabin with windows, lamps, and wheels that turn."""
    paint, glass, rubber, metal = 0, 1, 2, 3
    high, cabin = rng.uniform(0.14, 0.3), rng.uniform(0.1, 0.24)
    front, back = sorted(rng.uniform(-0.45, 0.45, 2))
    if back - front < 0.4:
        front, back = -0.3, 0.25
    slope_front, slope_back = rng.uniform(0, 0.14, 2)
    hull = box(1, high, rng.uniform(0.2, 0.7))
    roof = np.array([[front, 0], [front + slope_front, -cabin], [back - slope_back, -cabin], [back, 0]])
    roof = roof - (0, high * 0.4)
    parts = [Part([hull], paint, swing=0.015, beat=3, layer=2)]
    stripe = box(0.96, high * rng.uniform(0.08, 0.35), 0.1, (0, rng.uniform(-0.3, 0.3) * high))
    parts[0].decals += [(stripe, metal)] if rng.random() < 0.5 else []
    parts[0].decals += [(ellipse(0.07, 0.06, (side * 0.47, -high * 0.15)), metal) for side in (-1, 1)]
    panes = roof * (0.86, 0.72) + (0, -0.13 * cabin - high * 0.08)
    parts.append(Part([roof], pick(rng, [paint, paint, metal]), 0, layer=1, decals=[(panes, glass)]))
    for x in np.linspace(front, back, int(rng.integers(2, 5)))[1:-1]:
        parts[1].decals.append((box(0.03, cabin, 0.1, (x, -high * 0.4 - cabin / 2)), paint))
    radius, speed = rng.uniform(0.08, 0.14), rng.uniform(-0.6, 0.6)
    for x in (-0.31, 0.3, 0.14)[: pick(rng, [2, 2, 2, 3])]:
        rim = ellipse(radius * 1.2, radius * 1.2)
        hub = polygon(rng, radius * 1.1, int(rng.integers(4, 7)), 0.5)
        tyre = [ellipse(2 * radius, 2 * radius)]
        parts.append(Part(tyre, rubber, 0, (x, high * 0.45), spin=speed, layer=3, decals=[(rim, metal), (hub, rubber)]))
    if rng.random() < 0.25:
        parts.append(replace(lump(rng, 0.5, 0.3, 4), parent=0, joint=(-0.2, -high * 0.7), layer=0))
    return parts


def cycle(rng: np.random.Generator) -> list[Part]:
    """Return a bicycle or motorcycle. The background is visible between its spokes. Most have a rider."""
    frame, rubber = 4, 1
    radius, speed = rng.uniform(0.17, 0.26), rng.uniform(-0.7, 0.7)
    solid = rng.random() < 0.4
    bar = rng.uniform(0.02, 0.06) * (2 if solid else 1)
    parts = [Part([limb(0.4, bar, bar)], frame, joint=(-0.2, -0.22), angle=-_QUARTER, layer=2)]
    for angle, length, x in ((0.6, 0.32, 0.0), (-0.75, 0.34, 0.38), (-0.55, 0.36, 0.02), (0.6, 0.34, 0.4)):
        parts.append(Part([limb(length, bar, bar)], frame, 0, (0, x), _QUARTER + angle, layer=2))
    for x in (-0.36, 0.38):
        rim = wheel(radius, rng.uniform(0.15, 0.3), int(rng.integers(3, 9)), rng.uniform(0.03, 0.12))
        hub = Part(rim, rubber, 0, (-0.27, x + 0.2), spin=speed, layer=1)
        parts.append(hub)
    if solid:
        body = blob(rng, 0.6, 0.24, 0.2)
        parts.append(Part([body], 0, 0, (-0.1, 0.2), _QUARTER, layer=3))
    if rng.random() < 0.75:
        lean, first = rng.uniform(0.1, 0.8), len(parts)
        for part in person(rng):
            below = None if part.parent is None else part.parent + first
            if below is None:
                part = replace(part, parent=0, joint=(0.16, 0.05), angle=_QUARTER + lean)
            else:
                part = replace(part, parent=below, swing=part.swing * 0.5)
            parts.append(replace(part, layer=part.layer + 3))
    return parts


def flyer(rng: np.random.Generator) -> list[Part]:
    """Return a bird, plane or fish: a long body with wings or fins that move."""
    body = blob(rng, rng.uniform(0.6, 1), rng.uniform(0.14, 0.4), 0.08)
    marks = [(ellipse(*rng.uniform(0.05, 0.25, 2), (rng.uniform(-0.3, 0.3), 0)), 1) for _ in range(rng.integers(0, 4))]
    eye = (ellipse(0.035, 0.035, (0.3, -0.03)), 2)
    parts = [Part([body], 0, swing=0.06, layer=1, decals=[*marks, eye])]
    fan = np.array([[0, 0], [-0.3, rng.uniform(-0.3, -0.05)], [-0.25, 0], [-0.3, rng.uniform(0.05, 0.3)]])
    parts.append(Part([fan], pick(rng, [0, 1]), 0, (-0.32, 0), 0, rng.uniform(0.1, 0.6), layer=0))
    span, chord, beat = rng.uniform(0.1, 0.7), rng.uniform(0.08, 0.3), rng.uniform(0.1, 1.1)
    wing = np.array([[-chord / 2, 0], [chord / 2, 0], [chord * rng.uniform(-0.8, 0.4), span], [-chord * 0.6, span]])
    for side, layer in ((math.pi, 0), (0, 2)):
        lean = side + rng.uniform(-0.4, 0.4)
        parts.append(Part([wing], pick(rng, [0, 1]), 0, (0.05, 0), lean, beat, 1, side, layer=layer))
    beak = np.array([[0, -0.04], [0.14, 0], [0, 0.04]])
    parts.append(Part([beak], 2, 0, (0.36, 0), layer=0))
    return parts


def heap(rng: np.random.Generator) -> list[Part]:
    """Return a soft lump with up to three smaller lumps on it."""
    parts = [lump(rng, 1, rng.uniform(0.4, 1.4), 3)]
    for _ in range(int(rng.integers(0, 4))):
        joint = tuple(rng.uniform(-0.4, 0.4, 2))
        small = lump(rng, *rng.uniform(0.15, 0.6, 2), 3)
        swing, beat = rng.uniform(0, 0.5), pick(rng, [1, 2])
        parts.append(replace(small, parent=0, joint=joint, swing=swing, beat=beat, layer=pick(rng, [-1, 1])))
    return parts


def contraption(rng: np.random.Generator) -> list[Part]:
    """Return parts of random shapes on random joints."""
    shapes: list[Callable[[], list[np.ndarray]]] = [
        lambda: [blob(rng, *rng.uniform(0.2, 0.6, 2), rng.uniform(0.1, 0.6))],
        lambda: [box(*rng.uniform(0.1, 0.7, 2), rng.uniform(0, 1))],
        lambda: [limb(rng.uniform(0.2, 0.8), *rng.uniform(0.03, 0.2, 2), rng.uniform(-0.3, 1))],
        lambda: [polygon(rng, rng.uniform(0.2, 0.6), int(rng.integers(3, 8)), pick(rng, [0, 0.4]))],
        lambda: wheel(rng.uniform(0.1, 0.3), rng.uniform(0.1, 0.4), int(rng.integers(2, 8)), rng.uniform(0.03, 0.2)),
        lambda: [ellipse(0.5, 0.5), ellipse(*rng.uniform(0.15, 0.4, 2))],
    ]
    parts: list[Part] = []
    for index in range(int(rng.integers(2, 9))):
        part = Part(pick(rng, shapes)(), int(rng.integers(4)), layer=int(rng.integers(-2, 3)))
        part = replace(part, swing=rng.uniform(0, 0.9), beat=pick(rng, [1, 1, 2]), phase=rng.uniform(0, 6.28))
        part.angle = rng.uniform(0, 6.28)
        if index:
            joint, spin = tuple(rng.uniform(-0.25, 0.25, 2)), pick(rng, [0, 0, 0, rng.uniform(-0.3, 0.3)])
            part = replace(part, parent=int(rng.integers(index)), joint=joint, spin=spin)
        if rng.random() < 0.4:
            part.decals.append((blob(rng, *rng.uniform(0.05, 0.3, 2), 0.3), int(rng.integers(4))))
        parts.append(part)
    return parts


def thing(rng: np.random.Generator) -> list[Part]:
    """Return a rigid thing of one or two parts, such as a box, ball, board, ring, sign or bottle."""
    main = pick(
        rng,
        [
            lambda: [box(1, rng.uniform(0.15, 1.2), rng.uniform(0, 0.8))],
            lambda: [ellipse(1, 1)],
            lambda: [ellipse(1, 1), ellipse(*rng.uniform(0.4, 0.8, 2))],
            lambda: [polygon(rng, 1, int(rng.integers(3, 9)), pick(rng, [0, 0, 0.5]))],
            lambda: [limb(0.9, rng.uniform(0.1, 0.3), rng.uniform(0.3, 0.6), rng.uniform(-0.2, 0.4))],
            lambda: wheel(0.5, rng.uniform(0.1, 0.4), int(rng.integers(3, 8)), rng.uniform(0.05, 0.2)),
        ],
    )()
    if rng.random() < 0.5:
        decals = [(box(2, rng.uniform(0.05, 0.3), 0.1, (0, rng.uniform(-0.3, 0.3))), 1) for _ in range(2)]
    else:
        decals = [(polygon(rng, rng.uniform(0.2, 0.7), int(rng.integers(3, 8)), pick(rng, [0, 0.4])), 1)]
    parts = [Part(main, 0, decals=decals if rng.random() < 0.7 else [])]
    if rng.random() < 0.3:
        stick = [limb(rng.uniform(0.4, 1.2), *rng.uniform(0.04, 0.12, 2))]
        parts.append(Part(stick, 2, 0, (0, 0.3), rng.uniform(-0.4, 0.4), layer=-1))
    return parts


def crawler(rng: np.random.Generator) -> list[Part]:
    """Return an insect or spider: a body of two lumps, and many legs."""
    parts = [lump(rng, rng.uniform(0.3, 0.6), rng.uniform(0.25, 0.45), 2)]
    parts.append(replace(lump(rng, 0.22, 0.2, 2), parent=0, joint=(0.25, 0), swing=0.1))
    pairs, length, width = int(rng.integers(3, 6)), rng.uniform(0.2, 0.45), rng.uniform(0.02, 0.07)
    for index in range(pairs):
        for side in (-1, 1):
            angle = side * _QUARTER - _QUARTER + (index / (pairs - 1) - 0.5) * 1.4 * side
            phase = index * 1.7 + (side > 0) * math.pi
            joint = (0.3 * (0.5 - index / (pairs - 1)), 0.05 * side)
            parts.append(Part([limb(length, width * 1.4, width)], 0, 0, joint, angle, 0.3, 1, phase, layer=-1))
            shin = [limb(length, width, width * 0.4)]
            parts.append(Part(shin, 1, len(parts) - 1, (0, length), 0.7 * side, 0.3, 1, phase + 1, layer=-1))
    return parts


def _hull(points: np.ndarray) -> np.ndarray:
    """Return the indices of the points [N,2] on their convex hull, in order around it."""
    order = np.lexsort(points.T[::-1]).tolist()

    def half(sequence: list[int]) -> list[int]:
        kept: list[int] = []
        for index in sequence:
            while len(kept) > 1:
                first, second = points[kept[-1]] - points[kept[-2]], points[index] - points[kept[-2]]
                if first[0] * second[1] - first[1] * second[0] > 0:
                    break
                kept.pop()
            kept.append(index)
        return kept[:-1]

    return np.array(half(order) + half(order[::-1]))


# For each kind of object: the function that makes its parts, its relative frequency, the names of its categories, and
# the names of categories that only the validation videos of YouTube-VOS show.
PLANS: list[tuple[Callable[[np.random.Generator], list[Part]], float, tuple[str, ...], tuple[str, ...]]] = [
    (person, 4, ("person",), ("nurse",)),
    (animal, 4, ("dog", "horse", "cow", "cat", "sheep"), ("chamois", "tapir")),
    (vehicle, 3, ("sedan", "bus", "truck"), ("tractor",)),
    (cycle, 1.5, ("bike", "motorbike"), ("rickshaw",)),
    (flyer, 2, ("bird", "fish", "airplane"), ("stingray",)),
    (heap, 2, ("others",), ("jellyfish",)),
    (contraption, 2, ("others",), ("windmill",)),
    (thing, 2, ("sign", "skateboard", "others"), ("ring",)),
    (crawler, 1.5, (), ("spider", "crab")),
]


def random_plan(rng: np.random.Generator, unseen: bool) -> tuple[list[Part], str]:
    """Return the parts and the category of a random object. ``unseen`` allows categories for validation only."""
    weights = np.array([share if unseen or names else 0 for _, share, names, _ in PLANS])
    plan, _, names, held_out = PLANS[int(rng.choice(len(PLANS), p=weights / weights.sum()))]
    names = held_out if not names or (unseen and rng.random() < 0.3) else names
    return plan(rng), pick(rng, names)
