"""Clouds of points: the modality, PLY files, and the network that does not depend on their order."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

import mmssl_points
import mmssl_sources
from mmssl_points.modality import PICTURE, POINTS
from mmssl_points.net import PointsNet
from multimodal_ssl import Catalog, InputError
from multimodal_ssl.testing import check_encoder, check_modality

from .tables import open_table, write

CATALOG = Catalog.of(points=mmssl_points, sources=mmssl_sources)
Cloud = NDArray[np.floating[Any]]
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}


def ball(count: int = 100, seed: int = 0, *, channels: int = 0, cube: bool = False) -> Cloud:
    """Return points on the surface of a ball, or of a cube."""
    rng = np.random.default_rng(seed)
    found = rng.normal(size=(count, 3))
    found /= np.abs(found).max(1, keepdims=True) if cube else np.linalg.norm(found, axis=1, keepdims=True)
    return np.concatenate([found, rng.random((count, channels))], axis=1).astype(np.float32)


def ply(cloud: Cloud, kind: str, *, end: str = "\n", before: bool = False) -> bytes:
    """Return a PLY file: a camera first, if asked for, then points with a colour in bytes and doubles, then a face."""
    lines = ["ply", f"format {kind} 1.0", "comment made by a test"]
    lines += ["element camera 2", "property short id", "property float at"] if before else []
    lines += [
        f"element vertex {len(cloud)}",
        "property uchar red",
        "property double z",
        "property float y",
        "property float x",
    ]
    lines += ["element face 1", "property list uchar int vertex_indices", "end_header", ""]
    header = end.join(lines).encode()
    red, (x, y, z) = (cloud[:, 3] * 255).round().astype(int), cloud[:, :3].T
    if kind == "ascii":
        cameras = ["1 0.5", "2 0.5"] if before else []
        rows = [f"{r} {c!r} {b!r} {a!r}" for r, c, b, a in zip(red, z.tolist(), y.tolist(), x.tolist(), strict=True)]
        return header + end.join([*cameras, *rows, "3 0 1 2", ""]).encode()
    order = ORDERS[kind]
    table = np.zeros(len(cloud), [("r", "u1"), ("z", f"{order}f8"), ("y", f"{order}f4"), ("x", f"{order}f4")])
    table["r"], table["x"], table["y"], table["z"] = red, x, y, z
    cameras = np.zeros(2, [("id", f"{order}i2"), ("at", f"{order}f4")]).tobytes() if before else b""
    return header + cameras + table.tobytes() + b"\3" + np.arange(3, dtype=f"{order}i4").tobytes()


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def text(cloud: Cloud, apart: str = " ") -> bytes:
    return "".join(apart.join(map(repr, row)) + "\n" for row in cloud.tolist()).encode()


def build(**options: Any) -> PointsNet:
    torch.manual_seed(0)
    made = CATALOG.create("encoders", "points-net", options={"num_points": 64, "width": 16, "depth": 2, **options})
    assert isinstance(made, PointsNet)
    return made


def features(encoder: PointsNet, *clouds: Cloud) -> torch.Tensor:
    with torch.no_grad():
        return encoder.eval()(encoder.collate([encoder.prepare(cloud) for cloud in clouds]))


def test_the_modality_conforms(tmp_path: Path) -> None:
    path = tmp_path / "a.ply"
    path.write_bytes(ply(ball(channels=1), "ascii"))
    assert CATALOG.modality("points") is POINTS
    check_modality(
        POINTS, [path, str(path), path.read_bytes(), ball(), ball().tolist(), ball(1), npy(ball(9).astype(int))]
    )


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("kind", ["ascii", *ORDERS])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_vertices_of_a_ply_are_read_whatever_their_order_and_type(kind: str, end: str, before: bool) -> None:
    cloud = ball(channels=1)
    found = POINTS.load(ply(cloud, kind, end=end, before=before))
    np.testing.assert_allclose(found[:, :3], cloud[:, :3], rtol=1e-6)
    np.testing.assert_allclose(found[:, 3], cloud[:, 3], atol=0.5 / 255 + 1e-6)


@pytest.mark.parametrize("channels", [0, 3])
def test_arrays_and_lines_of_numbers_give_back_every_point(channels: int) -> None:
    cloud = ball(20, channels=channels)
    for data in (npy(cloud), npz(a=cloud), npz(points=cloud, labels=np.zeros(3)), text(cloud), text(cloud, ", ")):
        np.testing.assert_array_equal(POINTS.load(data), cloud)
    np.testing.assert_array_equal(POINTS.load(b"# x y z\n1 2 3\n\n// end\n"), [[1, 2, 3]])


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, np.finfo(np.float32).max, -1e18])
def test_points_that_are_not_finite_are_left_out(nothing: float) -> None:
    cloud = ball(5, channels=1)
    cloud[1, 0], cloud[3, 2] = nothing, nothing
    np.testing.assert_array_equal(POINTS.load(cloud), cloud[[0, 2, 4]])
    assert POINTS.measure(POINTS.load(cloud)) == {"points": 3, "channels": 1}


def test_a_channel_that_is_not_finite_leaves_a_point_out_only_of_an_encoder_that_uses_it() -> None:
    cloud = ball(40, channels=2)
    cloud[::2, 4], cloud[1, 3] = np.nan, np.finfo(np.float32).max
    np.testing.assert_array_equal(POINTS.load(cloud), cloud)
    for channels, kept in ((0, np.arange(40)), (1, np.delete(np.arange(40), 1)), (2, np.arange(3, 40, 2))):
        encoder = build(channels=channels)
        encoder.adapt([cloud])
        assert torch.isfinite(encoder.mean).all()
        found = features(encoder, cloud, cloud[kept])
        assert torch.equal(found[0], found[1])
    cloud[:, 3] = np.inf
    with pytest.raises(ValueError, match=r"at none of the 40 points are x, y, z and the 2 channels .* all finite"):
        build(channels=2).prepare(POINTS.load(cloud))


@pytest.mark.parametrize("rows", [3, 4, 6])
def test_a_point_in_each_column_is_told(rows: int) -> None:
    array = np.zeros((rows, 17), np.float32)
    for read in (POINTS.load, build().prepare):
        with pytest.raises(ValueError, match=rf"a point a row, not \[{rows}, 17\]: transpose it"):
            read(array)
    assert POINTS.load(np.zeros((rows, 16))).shape == (rows, 16)


@pytest.mark.parametrize("form", ["array", "list", "text", "npy", *ORDERS, "ascii"])
def test_details_far_from_the_origin_are_kept(form: str) -> None:
    cloud = ball(100).astype(np.float64)
    far = cloud + np.array([500_000, 5_400_000, 300])
    data: Any = {"array": far, "list": far.tolist(), "text": text(far), "npy": npy(far)}.get(form)
    if data is None:
        header = (
            HEADER.replace(b"ascii", form.encode()).replace(b"float", b"double").replace(b"vertex 2", b"vertex 100")
        )
        data = header + (text(far) if form == "ascii" else far.astype(f"{ORDERS[form]}f8").tobytes())
    found = features(build(num_points=40), POINTS.load(data), cloud)
    torch.testing.assert_close(found[0], found[1], atol=1e-4, rtol=1e-4)


def test_what_float32_holds_stays_float32() -> None:
    for kind in (np.float16, np.float32, np.int16, np.uint8):
        assert POINTS.load(np.ones((4, 3), kind)).dtype == np.float32
    assert POINTS.load(ply(ball(4, channels=1), "ascii")).dtype == np.float64
    assert POINTS.load(np.full((4, 3), 2**24 + 1)).tolist()[0] == [2**24 + 1] * 3


HEADER = b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty float y\nproperty float z\nend_header\n"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (ply(ball(channels=1), "ascii")[:900], "cut off: it has .* of 100 vertices"),
        (ply(ball(channels=1), "binary_little_endian")[:900], "cut off: it has .* of 100 vertices"),
        (ply(ball(channels=1), "ascii")[:50], "its header does not end"),
        (HEADER.replace(b"vertex 2", b"vertex 999999999999"), "cut off: it has 0 of 999,999,999,999"),
        (HEADER.replace(b"ascii", b"zipped"), "format of the PLY file is 'zipped'"),
        (HEADER.replace(b"float z", b"float w"), "no vertices of x, y and z"),
        (HEADER.replace(b"float z", b"float y"), "no vertices of x, y and z"),
        (HEADER.replace(b"float z", b"quad z"), "line 'property quad z'"),
        (HEADER.replace(b"float z", b"list uchar int z"), r"has lists \(z\)"),
        (HEADER.replace(b"vertex 2", b"vertex 0"), "empty: of its 0 points"),
        (HEADER + b"1 2 3\n4 5 six\n", "no numbers"),
        (HEADER + b"1 2 3\n4 5\n", "5 numbers in 2 lines of 3 properties"),
        (b" \n", "the file is empty"),
        (b"3\nwater\nO 0 0 0\n", "neither PLY, .npy nor .npz, nor lines of numbers"),
        (b"1 2 3\n4 5\n", "nor lines of numbers"),
        (npz(a=ball(), b=ball()), "holds a, b: name the cloud `points`"),
        (npz(a=ball())[:300], "broken"),
        (npy(ball())[:200], "EOF|array data"),
        (npy(np.array([None])), "allow_pickle|Object arrays"),
        (np.zeros((4, 2)), r"not float64 \[4, 2\]"),
        (np.zeros((0, 3)), "empty: of its 0 points"),
        (np.full((2, 3), np.nan), "empty: of its 2 points none is finite"),
        (np.full((2, 3), 1e300), "empty: of its 2 points none is finite"),
        (np.zeros((4, 3), bool), "not bool"),
        (7, "not a int"),
        ("nowhere.ply", r"nowhere\.ply"),
    ],
)
def test_what_is_no_cloud_is_told(value: object, message: str) -> None:
    with pytest.raises((ValueError, OSError), match=message):
        POINTS.load(value)


def test_the_preview_shows_what_is_above_above() -> None:
    cloud = np.concatenate([ball(500) * 0.1 + [0, 0, 1], ball(500) * 0.1 - [0, 0, 1]]).astype(np.float32)
    png = POINTS.preview(cloud[:500]).png, POINTS.preview(np.concatenate([cloud, ball(9) * 0.1 + [2, 0, 1]])).png
    assert png[0] is not None
    assert png[1] is not None
    one, two = (np.asarray(Image.open(io.BytesIO(data)).convert("L")) < 255 for data in png)
    assert one.shape == (PICTURE, PICTURE)
    assert one.mean() > 0.03
    rows = np.flatnonzero(two.any(1))
    assert (np.diff(rows) > 20).sum() == 1, "two balls, one above the other"


def test_the_encoder_conforms() -> None:
    check_encoder(build(), [ball(40), ball(500, 1), ball(1, 2), ball(64, 3, channels=2)])
    check_encoder(build(channels=3), [ball(40, channels=3), ball(80, 1, channels=3, cube=True)])


def test_features_do_not_depend_on_the_order_of_points() -> None:
    encoder, rng = build(channels=1), np.random.default_rng(0)
    for count in (1, 40, 64, 500):
        cloud = ball(count, channels=1)
        one, other = features(encoder, cloud, rng.permutation(cloud))
        assert torch.equal(one, other)
    inputs = encoder.collate([encoder.prepare(ball(40, channels=1))])
    order = torch.randperm(64)
    with torch.no_grad():
        moved = encoder({name: tensor[:, order] for name, tensor in inputs.items()})
        torch.testing.assert_close(moved, encoder(inputs))


def test_features_do_not_depend_on_where_a_cloud_is_nor_on_its_unit_nor_on_padding() -> None:
    cloud = ball(40)
    found = features(build(), cloud, 1000 * cloud + np.float32(50))
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(features(build(num_points=300), cloud), features(build(), cloud))


def test_augmentation_turns_about_the_axis_that_is_up_and_leaves_points_out() -> None:
    line = np.linspace(-np.ones(3), np.ones(3), 50).astype(np.float32)
    for up, flat in (("z", 2), ("y", 1), ("x", 0)):
        counts, turned = set(), []
        for seed in range(30):
            inputs = build(up=up).prepare(line, np.random.default_rng(seed))
            points = inputs["points"][inputs["mask"]].numpy()
            counts.add(len(points))
            widest = np.linalg.svd(points - points.mean(0))[2][0]
            turned.append(widest * np.sign(widest[flat]))
        assert np.ptp(np.array(turned)[:, flat]) < 0.05, "what is up stays"
        others = np.delete(np.array(turned), flat, 1)
        assert np.ptp(np.arctan2(*others.T)) > 4, "all else turns all the way"
        assert min(counts) < 42
        assert max(counts) <= 50
    rng = np.random.default_rng(0)
    assert torch.equal(build(augment=False).prepare(line, rng)["points"], build().prepare(line)["points"])


def test_adapting_takes_out_mean_and_deviation_of_the_other_channels() -> None:
    encoder, cloud = build(channels=2), ball(200, channels=2)
    cloud[:, 3] = 100 + 5 * cloud[:, 3]
    cloud[:, 4] = 7
    encoder.adapt([cloud[:50], cloud[50:]])
    torch.testing.assert_close(encoder.mean[3:], torch.tensor([cloud[:, 3].mean(), 7]), atol=1e-3, rtol=0)
    torch.testing.assert_close(encoder.std[3:], torch.tensor([cloud[:, 3].std(), 1]), atol=1e-3, rtol=0)
    assert encoder.mean[:3].tolist() == [0, 0, 0]


def test_a_channel_that_changes_little_about_a_large_mean_is_not_constant() -> None:
    encoder, cloud = build(channels=2), ball(4000, channels=2).astype(np.float64)
    cloud[:, 3] = 48.137 + 0.0005 * (cloud[:, 3] - 0.5)
    cloud[:, 4] = 1e6
    encoder.adapt([cloud[:50], cloud[50:]])
    torch.testing.assert_close(encoder.std[3:], torch.tensor([cloud[:, 3].std(), 1.0]).float(), atol=0, rtol=1e-3)


def test_adapting_skips_clouds_that_do_not_fit() -> None:
    encoder, other, cloud = build(channels=1), build(channels=1), ball(50, channels=1)
    encoder.adapt([ball(9), cloud, np.zeros((4, 30), np.float32), np.zeros(3, np.float32)])
    other.adapt([cloud])
    torch.testing.assert_close(encoder.mean, other.mean)
    torch.testing.assert_close(encoder.std, other.std)
    other = build(channels=1)
    other.adapt([ball(9)])
    assert (other.mean.tolist(), other.std.tolist()) == ([0] * 4, [1] * 4)


def test_normals_are_turned_with_the_cloud_and_not_normalised() -> None:
    cloud = np.concatenate([ball(200), ball(200), ball(200, 1)], axis=1)  # a ball's normals are its places
    encoder = build(channels=6, normals=True)
    encoder.adapt([cloud * np.float32([1, 1, 1, 5, 1, 1, 5, 1, 1])])
    assert (encoder.mean[3:6].tolist(), encoder.std[3:6].tolist()) == ([0] * 3, [1] * 3)
    assert encoder.std[6] > 2
    for seed in range(5):
        points, plain = (
            one.prepare(cloud, np.random.default_rng(seed))["points"][:40] for one in (encoder, build(channels=6))
        )
        place, normal, other = F.normalize(points[:, :3], dim=1), points[:, 3:6], points[:, 6:]
        assert (place * normal).sum(1).min() > 0.95
        torch.testing.assert_close(normal.norm(dim=1), torch.ones(40))
        torch.testing.assert_close(other, plain[:, 6:])
    assert torch.equal(encoder.prepare(cloud)["points"], build(channels=6).prepare(cloud)["points"])


def test_normals_need_three_channels() -> None:
    with pytest.raises(InputError, match="normals are the first three of the channels, but channels is 2: set it to 3"):
        build(channels=2, normals=True)


def test_a_cloud_of_too_few_channels_is_told() -> None:
    with pytest.raises(ValueError, match="takes points of 3 channels beyond x, y, z, not 1"):
        build(channels=3).prepare(ball(channels=1))


def test_a_few_steps_tell_balls_from_cubes() -> None:
    encoder = build().train()
    head = torch.nn.Linear(encoder.width, 2)
    items = [ball(80, seed, cube=seed % 2 == 1) for seed in range(96)]
    label = torch.arange(96) % 2
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=5e-3)
    for step in range(30):
        views = [encoder.prepare(one, np.random.default_rng((step, i))) for i, one in enumerate(items[:64])]
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(head(encoder(encoder.collate(views))), label[:64]))
        optimizer.step()
    assert (head(features(encoder, *items[64:])).argmax(1) == label[64:]).float().mean() > 0.9


def test_tables_feed_clouds_from_paths_and_lists(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_bytes(text(ball(5)))
    path = write(tmp_path / "t.jsonl", [{"p": "a.xyz", "n": "a"}, {"p": ball(5).tolist(), "n": "b"}])
    source = open_table(path, {"points": "p", "text": "n"})
    for sample in source:
        np.testing.assert_allclose(POINTS.open(sample.items["points"]), ball(5), rtol=1e-6)
