import numpy as np
import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from PIL import Image
from torch import nn
from torchvision.transforms import RandomResizedCrop

from mmssl_pretrained.crop import random_box
from mmssl_pretrained.depth import Depth, find_depth
from mmssl_pretrained.tower import freeze_unused
from mmssl_pretrained.waves import Waves, by_length, least_samples


def test_crops_have_the_scale_and_ratio_that_they_should():
    rng = np.random.default_rng(0)
    boxes = [random_box((200, 180), rng, scale=(0.5, 0.9), ratio=(0.8, 1.25)) for _ in range(300)]
    top, left, height, width = np.array(boxes).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 180).all()
    assert (left + width <= 200).all()
    area, ratio = height * width / (200 * 180), width / height
    assert 0.49 < area.min() < 0.53
    assert 0.85 < area.max() < 0.91
    assert 0.79 < ratio.min() < 0.85
    assert 1.18 < ratio.max() < 1.26
    assert left.min() == top.min() == 0
    assert abs(np.mean(left / (200 - width + 1e-9)) - 0.5) < 0.1


@pytest.mark.parametrize("size", [(300, 20), (20, 300)])
def test_crops_of_narrow_images_are_those_of_torchvision(size):
    crop = RandomResizedCrop(32, scale=(0.9, 1.0))
    expected = RandomResizedCrop.get_params(Image.new("RGB", size), crop.scale, crop.ratio)
    assert random_box(size, np.random.default_rng(0)) == expected  # no crop fits: nothing is drawn


class Tower(nn.Module):
    """Registers its parts in another order than it runs them, and runs only some of its blocks."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)) for _ in range(4))
        self.stem = nn.Linear(4, 4)

    def forward(self, x):
        for place in (2, 0, 1):
            x = self.blocks[place](x)
        return self.head(x) * self.scale


def test_blocks_are_found_in_the_order_in_which_they_run():
    tower = Tower()
    depth = find_depth(tower, lambda x: tower(tower.stem(x)), torch.rand(1, 4))
    assert depth == Depth(("blocks.2", "blocks.0", "blocks.1"), ((), (), ("head", "scale")))
    first, second, last = depth.layers(tower)
    assert (first, second) == (tower.blocks[2], tower.blocks[0])
    assert list(last.parameters()) == [*tower.blocks[1].parameters(), *tower.head.parameters(), tower.scale]


class Stages(nn.Module):
    """Has something between its blocks, positions that each of them takes, and a branch that joins late."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.ones(4))
        self.branch = nn.Linear(4, 4)
        self.between = nn.ModuleDict({"norm": nn.LayerNorm(4), "unused": nn.Linear(4, 4)})
        self.scale = nn.Parameter(torch.ones(4))
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)) for _ in range(3))
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        late, x = self.branch(x), self.stem(x)
        x = self.blocks[0](x + self.positions)
        x = self.between["norm"](x) * self.scale
        x = self.blocks[1](x + self.positions)
        x = self.blocks[2](x + self.positions + late)
        return self.norm(x)


def test_a_block_takes_what_follows_it_up_to_the_next():
    tower = Stages()
    depth = find_depth(tower, tower, torch.rand(2, 4))
    assert depth.blocks == ("blocks.0", "blocks.1", "blocks.2")
    assert depth.behind == (("between.norm", "scale"), (), ("norm",))
    first, second, _ = depth.layers(tower)
    assert list(first.parameters()) == [*tower.blocks[0].parameters(), *tower.between["norm"].parameters(), tower.scale]
    assert second is tower.blocks[1]


def test_a_frozen_tower_has_the_same_depth():
    tower = Tower().requires_grad_(False)
    with torch.no_grad():
        assert find_depth(tower, tower, torch.rand(1, 4)).behind == ((), (), ("head", "scale"))


def test_low_rank_updates_change_nothing_of_the_depth():
    tower = Tower()
    tower.head = nn.Sequential(nn.MultiheadAttention(4, 2))

    def forward(x):
        for place in (2, 0, 1):
            x = tower.blocks[place](x)
        return tower.head[0](x, x, x)[0] * tower.scale

    plain = find_depth(tower, forward, torch.rand(1, 4))
    inject_adapter_in_model(LoraConfig(r=2, target_modules=r"blocks\..\..|head\.0"), tower)
    modules, learn = dict(tower.named_modules()), [one.requires_grad for one in tower.parameters()]
    assert "head.0.base_layer.out_proj.base_layer" in modules
    assert find_depth(tower, forward, torch.rand(1, 4)) == plain
    assert dict(tower.named_modules()) == modules
    assert [one.requires_grad for one in tower.parameters()] == learn
    *_, last = plain.layers(tower)
    updates = {one for name, one in tower.named_parameters() if name.startswith(("head.", "blocks.1."))}
    assert {one for one in updates if one.requires_grad} == {one for one in last.parameters() if one.requires_grad}


def test_watching_a_tower_leaves_it_as_it_was():
    tower = Tower()
    tower.stem.eval().requires_grad_(False)
    find_depth(tower, tower, torch.rand(1, 4))
    assert tower.training
    assert not tower.stem.training
    assert [name for name, one in tower.named_parameters() if not one.requires_grad] == ["stem.weight", "stem.bias"]
    x = torch.rand(1, 4, requires_grad=True)
    tower(x).sum().backward()
    assert x.grad is not None


def test_a_tower_without_blocks_has_no_depth():
    tower = nn.Sequential(nn.Linear(4, 100), nn.LayerNorm(100))
    depth = find_depth(tower, tower, torch.rand(1, 4))
    assert depth == Depth()
    assert depth.layers(tower) == ()


def test_modules_that_are_never_run_are_no_blocks():
    tower = nn.Sequential(nn.MultiheadAttention(4, 1), nn.Linear(4, 4), nn.Linear(4, 4))
    tower[0].extra = nn.ModuleList(nn.Linear(100, 100) for _ in range(3))
    depth = find_depth(tower, lambda x: tower[2](tower[1](x)), torch.rand(1, 4))
    assert depth.blocks == ("1", "2")


def test_modules_that_run_more_than_once_are_no_blocks():
    tower = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    once = find_depth(tower, tower, torch.rand(1, 4))
    assert once.blocks == ("0", "1")
    assert find_depth(tower, lambda x: tower(tower[:2](x)), torch.rand(1, 4)) == Depth()
    assert find_depth(tower, lambda x: tower(tower[0](x)), torch.rand(1, 4)) == Depth()


def test_what_is_named_twice_is_counted_once():
    shared = nn.Linear(4, 4)
    tower = nn.Sequential(shared, nn.Linear(4, 4), shared)
    depth = find_depth(tower, lambda x: tower[1](tower[0](x)), torch.rand(1, 4))
    assert depth.blocks == ("0", "1")


def test_what_features_do_not_need_is_frozen_and_named():
    tower = Tower()
    features, unused = freeze_unused(tower, lambda: tower(torch.ones(1, 4)))
    assert torch.equal(features, tower(torch.ones(1, 4)))
    assert {name.rpartition(".")[0] for name in unused} == {"blocks.3.0", "blocks.3.1", "stem"}
    assert not tower.stem.weight.requires_grad
    assert tower.head.weight.requires_grad


class Sound:
    def __init__(self, samples, rate):
        self.samples, self.rate = samples, rate


def test_a_wave_is_the_middle_of_its_sound_in_mono():
    samples = np.arange(20, dtype=np.float32).reshape(2, 10)
    waves = Waves(rate=100, seconds=0.04, least=1)
    assert waves(Sound(samples, 100), None).tolist() == [8, 9, 10, 11]
    assert len(waves(Sound(samples[:, :3], 100), None)) == 3
    starts = {float(waves(Sound(samples, 100), np.random.default_rng(seed))[0]) for seed in range(50)}
    assert starts == {5, 6, 7, 8, 9, 10, 11}


def test_a_window_crops_at_random_alone():
    waves = Waves(rate=100, seconds=None, least=1, window=0.04)
    sound = Sound(np.ones((1, 10), np.float32), 100)
    assert len(waves(sound, None)) == 10
    assert len(waves(sound, np.random.default_rng(0))) == 4


def test_sounds_of_odd_rates_are_resampled():
    for rate in (8000, 44101):
        tone = np.sin(2 * np.pi * 500 * np.arange(rate) / rate, dtype=np.float32)[None]
        wave = Waves(rate=16000, seconds=None, least=1)(Sound(tone, rate), None)
        expected = np.sin(2 * np.pi * 500 * np.arange(len(wave)) / 16000)
        assert abs(len(wave) - 16000) < 20
        assert np.abs(wave - expected)[100:1000].max() < 0.02


def test_items_of_one_length_go_together_and_come_back_in_order():
    lengths, calls = torch.tensor([3, 1, 3, 2]), []

    def run(rows, length):
        calls.append(rows.tolist())
        return torch.stack([rows, torch.full_like(rows, length)], 1)

    assert by_length(lengths, run).tolist() == [[0, 3], [1, 1], [2, 3], [3, 2]]
    assert sorted(calls) == [[0, 2], [1], [3]]


def test_tokens_of_several_lengths_are_padded_to_the_longest():
    tokens = by_length(torch.tensor([3, 1, 3]), lambda rows, length: torch.ones(len(rows), length, 2))
    assert tokens.shape == (3, 3, 2)
    assert tokens.sum(2).tolist() == [[2, 2, 2], [2, 0, 0], [2, 2, 2]]


def test_the_fewest_samples_of_a_frame_are_those_that_convolutions_need():
    convolutions = [(10, 5), (3, 4), (2, 2)]
    layers = nn.Sequential(*(nn.Conv1d(1, 1, kernel, stride) for kernel, stride in convolutions))
    least = least_samples(convolutions)
    assert layers(torch.zeros(1, 1, least)).shape[-1] == 1
    with pytest.raises(RuntimeError):
        layers(torch.zeros(1, 1, least - 1))
