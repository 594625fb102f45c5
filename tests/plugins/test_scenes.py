from __future__ import annotations

import io
import pickle
import wave
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import mmssl_scenes
from mmssl_scenes.maps import measure_depth, measure_heat
from mmssl_scenes.motion import EDGES, RATE, feel
from mmssl_scenes.picture import COLOURS, photograph
from mmssl_scenes.scene import COMBINATIONS, FACTORS, Factors, Scene, draw_scene
from mmssl_scenes.sound import record
from mmssl_scenes.source import MODALITIES, Scenes
from mmssl_scenes.tracing import CAMERA, FOCAL, SOLIDS, middle, trace
from mmssl_scenes.words import WORDS, describe
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_pairing_source, check_resume

Split = Literal["train", "val", "test", "all"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
SIZE = 64
BALL = Factors("sphere", "red", "medium", "near", "centre", "hot", "leftwards", "fast")


def scenes(
    *,
    split: Split = "test",
    renderings: int = 1,
    limit: int | None = None,
    seed: int = 0,
    size: int = 32,
    missing: float | dict[str, float] = 0.0,
    noise: float = 1.0,
) -> Scenes:
    return Scenes(
        split=split, renderings=renderings, limit=limit, seed=seed, size=size, missing=missing, noise=noise
    )  # fmt: skip


def scene(
    *,
    radius: float = 0.4,
    distance: float = 2.5,
    sideways: float = 0.0,
    temperature: float = 60.0,
    velocity: float = 1.5,
    yaw: float = 0.3,
    rendering: int = 0,
    **factors: str,
) -> Scene:
    identity = (0, 0, rendering)
    return Scene(identity, BALL._replace(**factors), radius, distance, sideways, temperature, velocity, yaw)


def sound(scene: Scene) -> tuple[NDArray[np.float64], int]:
    with wave.open(io.BytesIO(record(scene, 0.0))) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2") / 32767, file.getframerate()


def pitch(scene: Scene) -> float:
    samples, rate = sound(scene)
    return float(abs(np.fft.rfft(samples)).argmax() * rate / len(samples))


def content(item: Any) -> bytes:
    value = item if isinstance(item, str) else item.read()
    return value.tobytes() if isinstance(value, np.ndarray | Image.Image) else pickle.dumps(value)


def test_the_source_conforms_and_resumes() -> None:
    check_pairing_source(scenes(limit=40, renderings=2))
    check_pairing_source(scenes(limit=40, missing={"audio": 0.5, "image": 0.3}))
    check_resume(scenes(limit=60, missing=0.3), workers=(0, 1, 2))


def test_the_items_are_what_the_modalities_load() -> None:
    catalog = Catalog.discover()
    sample = scenes(limit=1)[0]
    raw = {name: catalog.modality(kind).open(sample.items[name]) for name, kind in MODALITIES.items()}
    assert raw["image"].size == (32, 32)
    assert raw["image"].mode == "RGB"
    assert raw["depth"].shape == raw["thermal"].shape == (32, 32)
    assert raw["audio"].samples.shape == (1, raw["audio"].rate)
    assert raw["motion"].shape == (6, 128)
    assert all(raw[name].dtype == np.float32 for name in ("depth", "thermal", "motion"))


def test_no_combination_is_in_two_splits_and_together_they_are_all() -> None:
    numbers = [set((one.rows // one.renderings).tolist()) for one in (scenes(split=split) for split in SPLITS)]
    assert sum(map(len, numbers)) == len(set.union(*numbers)) == len(COMBINATIONS) > 30_000
    assert 0.08 < len(numbers[2]) / len(COMBINATIONS) < 0.12
    assert len(set(COMBINATIONS)) == len(COMBINATIONS)
    found = {tuple(sample.metadata.values()) for sample in scenes(limit=50)}
    assert found <= {COMBINATIONS[number] for number in numbers[2]}


def test_renderings_of_a_combination_are_one_group_and_look_different() -> None:
    one, other = scenes(renderings=2)[0], scenes(renderings=2)[1]
    assert one.group == other.group
    assert one.key != other.key
    assert all(content(one.items[name]) != content(other.items[name]) for name in MODALITIES if name != "text")
    assert len({describe(draw_scene(0, 0, rendering)) for rendering in range(20)}) > 10


def test_a_scene_depends_on_seed_and_key_alone() -> None:
    some, everything = scenes(limit=30), scenes(split="all", renderings=2)
    for sample, row in zip(some, some.rows.tolist(), strict=True):
        again = everything[2 * row]
        assert sample.key == again.key
        assert [content(one) for one in sample.items.values()] == [content(one) for one in again.items.values()]
    assert content(scenes(limit=1)[0].items["image"]) != content(scenes(seed=1)[0].items["image"])


def test_shares_of_items_are_missing_and_the_manifest_knows_which() -> None:
    source = scenes(split="all", missing={"audio": 0.5, "depth": 0.2})
    share = 1 - source.manifest().present.mean(0)
    assert share == pytest.approx([0, 0, 0.5, 0.2, 0, 0], abs=0.01)
    assert (scenes(split="all", missing=0.4).present.mean(0) < 0.62).all()
    assert (scenes(missing=1.0).present.sum(1) == 1).all(), "one item always stays"
    part, whole = scenes(missing=0.3, limit=100), scenes(split="all", missing=0.3)
    assert (part.present == whole.present[part.rows]).all()
    with pytest.raises(InputError, match="no sound; items are image"):
        scenes(missing={"sound": 0.5})


@pytest.mark.parametrize(("option", "value"), [("limit", 0), ("missing", 1.5), ("size", 8), ("noise", -1)])
def test_numbers_that_can_not_be_are_refused(option: str, value: float) -> None:
    with pytest.raises(InputError, match=f"'scenes', option {option}"):
        Catalog.of(scenes=mmssl_scenes).create("pairing_sources", "scenes", options={option: value})


def test_the_nearest_point_of_a_sphere_is_a_radius_nearer_than_its_middle() -> None:
    for distance, sideways in ((2.0, 0.0), (3.0, 0.5), (4.5, -1.0)):
        ball = scene(distance=distance, sideways=sideways)
        view = trace(ball, SIZE)
        assert view.depth[view.solid].min() == pytest.approx(distance - 0.4, abs=0.01)
        assert measure_depth(ball, SIZE, 0.0)[view.solid].min() == pytest.approx(distance - 0.4, abs=0.01)


@pytest.mark.parametrize("shape", SOLIDS)
def test_rays_meet_the_solids_where_they_are(shape: str) -> None:
    solid = scene(shape=shape, distance=2.2, sideways=0.2)
    view = trace(solid, SIZE)
    x, y, _ = middle(solid)
    depth = view.depth[view.solid]
    height = (view.up[view.solid] * depth - y) / solid.radius
    assert view.solid.sum() > 100
    assert height.max() == pytest.approx({"cylinder": 0.95, "cube": 0.8, "diamond": 1.15}.get(shape, 1.0), abs=0.15)
    assert abs(view.right[view.solid] * depth - x).max() < 1.4 * solid.radius
    assert (y - SOLIDS[shape][1] * solid.radius) == pytest.approx(-CAMERA), "it stands on the floor"
    lengths = np.linalg.norm(view.normal[:, view.solid], axis=0)
    assert lengths == pytest.approx(np.ones_like(lengths), abs=1e-3)
    sight = np.stack([view.right, view.up, np.ones_like(view.up)])[:, view.solid]
    assert ((sight * view.normal[:, view.solid]).sum(0) < 0.1).mean() > 0.98, "only what faces the camera is seen"


def test_a_sphere_is_as_large_as_perspective_makes_it() -> None:
    areas = [trace(scene(distance=distance), 128).solid.sum() for distance in (2.0, 3.0, 4.5)]
    expected = [np.pi * (0.4 * FOCAL * 128 / distance) ** 2 for distance in (2.0, 3.0, 4.5)]
    assert areas[0] > areas[1] > areas[2]
    assert areas == pytest.approx(expected, rel=0.12)


def test_depth_is_unknown_where_nothing_is_near() -> None:
    depth = measure_depth(scene(), SIZE, 1.0)
    assert np.isnan(depth[0]).all(), "the wall is out of range"
    assert np.isfinite(depth[-1]).mean() > 0.9
    assert np.nanmax(depth) < 6.2


def test_heat_rises_with_temperature_and_knows_no_colour() -> None:
    means = [float(measure_heat(scene(temperature=one), SIZE, 1.0).mean()) for one in (4, 34, 62)]
    assert means[0] < means[1] < means[2]
    red, blue = (scene(colour=one) for one in ("red", "blue"))
    assert (measure_heat(red, SIZE, 1.0) == measure_heat(blue, SIZE, 1.0)).all()
    assert record(red, 1.0) == record(blue, 1.0)
    assert (feel(red, 1.0) == feel(blue, 1.0)).all()


@pytest.mark.parametrize("colour", COLOURS)
def test_a_picture_shows_the_colour_and_no_warmth(colour: str) -> None:
    solid = scene(colour=colour)
    picture = np.asarray(photograph(solid, SIZE, 0.0), float)[trace(solid, SIZE).solid]
    hue = picture.mean(0) / picture.mean()
    ratio = {name: np.array(one) / np.mean(one) for name, one in COLOURS.items()}
    assert min(ratio, key=lambda name: float(abs(ratio[name] - hue).sum())) == colour
    assert photograph(scene(temperature=4), SIZE, 1.0) == photograph(scene(temperature=60), SIZE, 1.0)


def test_the_larger_the_lower_the_sound_and_the_faster_the_more_strikes() -> None:
    pitches = [pitch(scene(radius=radius)) for radius in (0.25, 0.4, 0.6)]
    assert pitches == pytest.approx([680, 425, 283], rel=0.03)
    slow, fast = (sound(scene(shape="cube", velocity=one))[0] for one in (0.6, 1.5))
    assert np.square(fast).sum() > 1.8 * np.square(slow).sum()


def test_what_comes_nearer_gets_louder() -> None:
    for direction, louder in (("towards", True), ("away", False)):
        begin, end = np.array_split(np.square(sound(scene(direction=direction))[0]), 2)
        assert (end.sum() > begin.sum()) == louder


def test_a_solid_turns_the_way_it_rolls_and_as_fast_as_its_radius_says() -> None:
    rates = [np.median(feel(scene(radius=radius), 0.0)[5, 64:]) for radius in (0.3, 0.6)]
    assert rates == pytest.approx([1.5 / 0.3, 1.5 / 0.6], rel=0.01)
    # Rolling without sliding: rotation x (from the floor to the middle) is the velocity.
    for direction, velocity in (("leftwards", (-1, 0)), ("rightwards", (1, 0)), ("towards", (0, -1)), ("away", (0, 1))):
        felt = feel(scene(direction=direction), 0.0)
        turn = np.cross(felt[3:, 64:].mean(1) * 0.4, [0, 1, 0])
        assert turn[[0, 2]] == pytest.approx(1.5 * np.array(velocity), abs=0.02)
        pushed = felt[[0, 2], :48].sum(1) / RATE
        assert pushed == pytest.approx(1.5 * np.array(velocity), abs=0.25), "it comes up to speed"


def test_edges_are_felt() -> None:
    shaken = {shape: float(feel(scene(shape=shape), 0.0)[1, 64:].std()) for shape in EDGES}
    assert min(one for shape, one in shaken.items() if shape != "sphere") > 2 * shaken["sphere"]


def test_text_names_all_there_is_and_nothing_else() -> None:
    for number in range(0, len(COMBINATIONS), 997):
        for rendering in range(5):
            one = draw_scene(0, number, rendering)
            said = describe(one)
            for value in one.factors:
                assert any(word in said for word in WORDS[value]), (value, said)
            for factor in ("shape", "colour", "size", "warmth"):
                for other in set(FACTORS[factor]) - set(one.factors):
                    words = said.replace(",", " ").replace(":", " ").replace(";", " ").split()
                    assert not set(WORDS[other]) & set(words), (other, said)
