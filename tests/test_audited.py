from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from torch import Tensor

from multimodal_ssl import InputError, Objective, PairingSource, objectives
from multimodal_ssl.audited import SOON, apply_audit
from multimodal_ssl.config import AuditConfig, load_config, parse_config
from multimodal_ssl.data import Supply, hash64
from multimodal_ssl.pipeline import fit
from multimodal_ssl.testing import check_pairing_source
from multimodal_ssl.types import Alignment, MapSource

from .toys import Numbers, Stream, Torn, catalog, present, read_rows, refusal, toy_config

Judgement = Mapping[str, float | None] | Sequence[tuple[str, float | None]]


def write(folder: Path, judgement: Judgement) -> Path:
    """Write the p_mismatch of keys as an audit does, beside columns that nobody asks for."""
    rows = list(judgement.items() if isinstance(judgement, Mapping) else judgement)
    columns = {"key": [key for key, _ in rows], "p_value": [0.5] * len(rows), "p_mismatch": [p for _, p in rows]}
    pq.write_table(pa.table({**columns, "reasons": [["x"]] * len(rows)}), folder / "audit.parquet")
    return folder / "audit.parquet"


def audited(folder: Path, judgement: Judgement, *sources: PairingSource, **options: Any) -> list[PairingSource]:
    config = AuditConfig(path=write(folder, judgement), **options)
    return [one.source for one in apply_audit([Supply(one, tuple(one.modalities)) for one in sources], config)]


def weights(source: PairingSource) -> dict[str, float]:
    return {sample.key: sample.weight for sample in source}


@pytest.mark.parametrize("kind", [Numbers, lambda count: Stream(Numbers(count))])
def test_what_is_held_for_wrong_is_left_out_and_all_else_stays_as_it_is(tmp_path: Path, kind: Any) -> None:
    p = {str(i): i / 10 for i in range(11)}
    for options, kept in (({}, range(5)), ({"above": 0.8}, range(8)), ({"above": 1.0}, range(10))):
        (source,) = audited(tmp_path, p, kind(11), **options)
        assert weights(source) == {str(i): 1.0 for i in kept}
        assert all(sample.items == {"a": int(sample.key), "b": int(sample.key)} for sample in source)


@pytest.mark.parametrize("is_stream", [False, True])
def test_weighing_multiplies_the_weight_of_the_source_by_the_probability_that_the_pair_is_right(
    tmp_path: Path, is_stream: bool
) -> None:
    numbers = Numbers(5, weights={0: 0.5, 1: 0.5, 3: 0.25})
    p = {"0": 0.2, "1": 0.0, "2": 0.75, "3": 1.0}  # 4 is not known
    (source,) = audited(tmp_path, p, Stream(numbers) if is_stream else numbers, use="weigh", above=0.1)
    assert weights(source) == pytest.approx({"0": 0.4, "1": 0.5, "2": 0.25, "4": 1.0}), "nothing has the weight 0"


def test_a_judged_map_is_a_source_like_any_other(tmp_path: Path) -> None:
    def kind(index: int) -> str:
        return ("ab", "abc", "bc")[index % 3]

    numbers = Numbers(30, "abc", kind=kind, group=lambda i: f"g{i // 3}")
    (source,) = audited(tmp_path, {str(i): float(i % 7 == 0) for i in range(30)}, numbers)
    assert isinstance(source, MapSource)
    check_pairing_source(source)
    rest = [i for i in range(30) if i % 7]
    assert len(source) == len(rest)
    for row, i in enumerate(rest):
        assert source[row] == numbers[i]
        assert present(source, row) == set(kind(i))


def test_of_several_pairs_of_a_sample_the_worst_counts(tmp_path: Path) -> None:
    p = [("0", 0.1), ("0", 0.9), ("1", 0.8), ("1", 0.2), ("2", 0.3), ("2", None), ("3", None), ("3", 0.6)]
    (dropped,) = audited(tmp_path, p, Numbers(4, "abc"))
    assert weights(dropped) == {"2": 1.0}
    (weighed,) = audited(tmp_path, p, Numbers(4, "abc"), use="weigh")
    assert weights(weighed) == pytest.approx({"0": 0.1, "1": 0.2, "2": 0.7, "3": 0.4})


def test_what_was_not_judged_stays_and_its_number_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    numbers = Numbers(2000, broken={4})
    (source,) = audited(tmp_path, {"0": 1.0, "1": 1.0, "2": 0.1, "3": None, "elsewhere": 1.0}, numbers)
    assert sorted(map(int, weights(source))) == [i for i in range(2, 2000) if i != 4]
    assert "audit: 2 of 2,000 samples are left out; it does not know 1,996" in capsys.readouterr().err


def test_a_sample_that_can_not_be_read_is_left_for_training_to_record(tmp_path: Path) -> None:
    run = tmp_path / "run"
    path = write(tmp_path, {"1": 1.0, "3": None, "4": 0.0})
    config = with_audit(toy_config(run, "ab", batch=4, steps=2, max_unreadable=1), path)
    fit(config, catalog=catalog([Numbers(9, broken={3, 5})]))
    assert sorted(visited(run)) == sorted(hash64(str(i) for i in (0, 2, 4, 6, 7, 8)).tolist())
    assert sorted(one["key"] for one in read_rows(run)) == ["3", "5"]


def test_keys_of_several_sources_are_told_apart(tmp_path: Path) -> None:
    p = {"0/1": 1.0, "1/2": 0.75, "2/0": 1.0, "3": 1.0}
    found = audited(tmp_path, p, Numbers(4), Numbers(4), Stream(Numbers(4)), use="weigh")
    assert [weights(one) for one in found] == [
        {"0": 1, "2": 1, "3": 1},
        {"0": 1, "1": 1, "2": 0.25, "3": 1},
        {"1": 1, "2": 1, "3": 1},
    ]


def test_shares_and_names_of_the_supplies_stay(tmp_path: Path) -> None:
    supplies = [Supply(Numbers(4, "abc"), ("c", "a"), 2.5), Supply(Stream(Numbers(4)), ("a", "b"), 0.5)]
    found = apply_audit(supplies, AuditConfig(path=write(tmp_path, {"0/1": 1.0})))
    assert [(one.names, one.share) for one in found] == [(("c", "a"), 2.5), (("a", "b"), 0.5)]


def test_what_the_source_skips_is_still_told(tmp_path: Path) -> None:
    (source,) = audited(tmp_path, {"1": 1.0}, Stream(Numbers(5, broken={2, 3})))
    assert sorted(weights(source)) == ["0", "4"]
    assert source.skipped == [("line 2", "broken"), ("line 3", "broken")]
    numbers = Numbers(5)
    numbers.skipped = [("row 9", "torn")]
    (source,) = audited(tmp_path, {"1": 1.0}, numbers)
    assert source.skipped == [("row 9", "torn")]


def test_an_audit_of_other_sources_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"audit\.parquet knows none of the 1,004 samples: it is an audit of other"):
        audited(tmp_path, {"0": 1.0, "1": 0.5}, Numbers(4), Numbers(1000))  # they would be 0/0 and 0/1
    audited(tmp_path, {"0/0": 0.0}, Numbers(4), Numbers(1000))  # one is enough


def test_what_an_audit_does_to_a_stream_is_told_after_the_first_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (source,) = audited(tmp_path, {"0": 1.0, "1": 0.0}, Stream(Numbers(4)))
    for said in ("audit: 1 of 4 samples are left out; it does not know 2\n", ""):
        assert capsys.readouterr().err == ""
        assert len(list(source)) == 3
        assert capsys.readouterr().err == said


@pytest.mark.parametrize(("count", "read"), [(4, 4), (SOON + 5, SOON - 1)])
def test_an_audit_of_other_streams_is_refused_soon(tmp_path: Path, count: int, read: int) -> None:
    (source,) = audited(tmp_path, {"x": 1.0}, Stream(Numbers(count)))
    samples = iter(source)
    for _ in range(read):
        next(samples)
    with pytest.raises(InputError, match=rf"knows none of the {read + (read > 4):,} samples: it is an audit of other"):
        next(samples)


def test_what_is_no_audit_is_refused(tmp_path: Path) -> None:
    def said(path: Path) -> str:
        return refusal(lambda: apply_audit([Supply(Numbers(4), ("a", "b"))], AuditConfig(path=path)))

    assert said(tmp_path / "nowhere.parquet").startswith(f"can't read the audit {tmp_path / 'nowhere.parquet'}: ")
    assert said(tmp_path).startswith(f"can't read the audit {tmp_path}: ")
    (tmp_path / "audit.json").write_text("{}")
    assert said(tmp_path / "audit.json").startswith(f"can't read the audit {tmp_path / 'audit.json'}: ")
    for names in (["key"], ["p_mismatch"], ["names", "values"]):
        pq.write_table(pa.table({name: [0.5] for name in names}), tmp_path / "trust.parquet")
        assert "trust.parquet is no audit.parquet: it lacks key or p_mismatch" in said(tmp_path / "trust.parquet")


def with_audit(config: Any, path: Path, **options: Any) -> Any:
    return config.model_copy(update={"audit": AuditConfig(path=path, **options)})


def visited(run: Path) -> list[int]:
    """Return the hashes of the samples that training saw."""
    names: list[int] = pq.ParquetFile(run / "trust.parquet").read()["names"].to_pylist()
    return names


@pytest.mark.parametrize("is_stream", [False, True])
def test_training_visits_all_but_what_is_left_out(tmp_path: Path, is_stream: bool) -> None:
    path = write(tmp_path, {str(i): float(i % 3 == 0) for i in range(48)})
    source: PairingSource = Stream(Numbers(48)) if is_stream else Numbers(48)
    config = toy_config(tmp_path / "run", "ab", batch=8, steps=4)
    fit(with_audit(config, path), catalog=catalog([source]))
    assert sorted(visited(tmp_path / "run")) == sorted(hash64(str(i) for i in range(48) if i % 3).tolist())
    whole = config.model_copy(update={"run": tmp_path / "whole", "train": config.train.model_copy(update={"steps": 6})})
    fit(whole, catalog=catalog([source]))
    assert len(visited(tmp_path / "whole")) == 48, "without the audit they are all seen"


def test_an_epoch_is_as_long_as_what_is_left(tmp_path: Path) -> None:
    path = write(tmp_path, {str(i): float(i % 4 == 0) for i in range(64)})
    config = toy_config(tmp_path / "run", "ab", batch=8, steps=None, epochs=2)
    fit(with_audit(config, path), catalog=catalog([Numbers(64)]))
    visits = pq.ParquetFile(tmp_path / "run" / "trust.parquet").read()["visits"].to_pylist()
    assert visits == [2] * 48


def test_the_objective_gets_the_weights_that_the_audit_leaves(tmp_path: Path) -> None:
    seen: dict[float, int] = {}

    class Watching(Objective):
        def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
            super().__init__()
            self.inner = objectives.info_nce(pairs)

        def forward(self, views: Mapping[str, Tensor], weight: Tensor, group: Tensor) -> Alignment:
            for one in weight.tolist():
                seen[round(one, 4)] = seen.get(round(one, 4), 0) + 1
            return self.inner(views, weight, group)

    path = write(tmp_path, {str(i): (0.0, 0.25, 0.75, 1.0)[i % 4] for i in range(32)})
    config = toy_config(tmp_path / "run", "ab", batch=8, steps=3, objective="toy")
    fit(with_audit(config, path, use="weigh"), catalog=catalog([Numbers(32)], objective=Watching))
    assert seen == {1.0: 8, 0.75: 8, 0.25: 8}


def test_the_config_of_a_run_repeats_it_with_its_audit(tmp_path: Path) -> None:
    path = write(tmp_path, {str(i): float(i % 3 == 0) for i in range(48)})
    toys = catalog([Numbers(48)])
    one = fit(with_audit(toy_config(tmp_path / "run", "ab"), path, use="weigh", above=0.9), catalog=toys)
    config = load_config(tmp_path / "run" / "config.yaml", [f"run={tmp_path / 'again'}"])
    assert config.audit == AuditConfig(path=path, use="weigh", above=0.9)
    assert fit(config, catalog=toys).fingerprint() == one.fingerprint()
    plain = fit(toy_config(tmp_path / "plain", "ab"), catalog=toys)
    assert plain.fingerprint() != one.fingerprint()


def test_a_run_can_not_be_resumed_with_another_audit(tmp_path: Path) -> None:
    path = write(tmp_path, {str(i): float(i % 3 == 0) for i in range(48)})
    toys, config = catalog([Numbers(48)]), toy_config(tmp_path / "run", "ab")
    fit(with_audit(config, path), catalog=toys)
    fit(with_audit(config, path), resume=True, catalog=toys)
    for other in (config, with_audit(config, path, use="weigh")):
        with pytest.raises(InputError, match=r"was begun with another config \(audit"):
            fit(other, resume=True, catalog=toys)


def test_an_audit_that_leaves_less_than_a_batch_is_told_before_anything_is_written(tmp_path: Path) -> None:
    path = write(tmp_path, {str(i): 1.0 for i in range(20)})
    with pytest.raises(InputError, match="a batch of 8 is larger than the data: source 0 has 4 samples"):
        fit(with_audit(toy_config(tmp_path / "run", "ab"), path), catalog=catalog([Numbers(24)]))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"path": "x", "use": "omit"}, "audit.use: Input should be 'drop' or 'weigh'"),
        ({"path": "x", "above": 0}, "audit.above: Input should be greater than 0"),
        ({"path": "x", "over": 0.5}, "unknown key audit.over"),
        ({"use": "drop"}, "audit.path: Field required"),
    ],
)
def test_a_mistake_in_the_audit_of_a_config_names_the_key(values: dict[str, Any], message: str) -> None:
    rest = {"run": "x", "sources": ["a"], "encoders": {"a": "b"}, "train": {"steps": 1}}
    with pytest.raises(InputError, match=message):
        parse_config({**rest, "audit": values})


def test_what_a_stream_skips_is_told_at_once(tmp_path: Path) -> None:
    (source,) = audited(tmp_path, {"1": 1.0}, Stream(Numbers(9, broken={2})))
    samples = iter(source)
    for _ in range(3):
        next(samples)
    assert source.skipped == [("line 2", "broken")]


def test_a_sample_whose_source_stumbles_costs_only_that_sample(tmp_path: Path) -> None:
    """It stays where it is: training records it."""
    (source,) = audited(tmp_path, {"1": 1.0}, Torn(9))
    assert isinstance(source, MapSource)
    assert len(source) == 8
