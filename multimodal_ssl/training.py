"""The training loop, from top to bottom."""

from __future__ import annotations

import copy
import itertools
import math
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from multimodal_ssl.binder import Binder, to_device
from multimodal_ssl.checkpoint import restore_checkpoint, save_checkpoint
from multimodal_ssl.config import TrainConfig, TrustConfig
from multimodal_ssl.data import Feed, batches, full_key, hash64
from multimodal_ssl.distributed import add_counts, gather, share
from multimodal_ssl.errors import InputError
from multimodal_ssl.health import diagnose
from multimodal_ssl.plan import Plan, count_visits
from multimodal_ssl.runlog import RunLog, progress
from multimodal_ssl.trust import Trust
from multimodal_ssl.tuning import parameter_groups
from multimodal_ssl.types import Inputs, MapSource, Objective

MANY = 1000  # samples, before the share of unreadable ones says something


class Learner(nn.Module):
    """Binder and objective in one module, so that one call makes the loss and one wrapper distributes it."""

    def __init__(self, binder: Binder, objective: Objective) -> None:
        super().__init__()
        self.binder, self.objective = binder, objective

    def forward(self, inputs: Mapping[str, Inputs], weight: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, the agreement [B] and the spread of the views (see health), all of all processes."""
        views, weight, group = gather(self.binder(inputs), weight, group)
        with torch.autocast(weight.device.type, enabled=False):  # bf16 can't tell cosines of .98 and .985 apart
            loss, agreement = self.objective(views, weight, group)
        with torch.no_grad():
            spread = torch.stack([1 - view.mean(0).square().sum() for view in views.values()]).min()
        return loss, agreement, spread


def count_steps(plan: Plan, config: TrainConfig) -> int:
    """Return the length of training; raise InputError if it is given in epochs of a source that can't tell its own."""
    return config.steps or max(1, round((config.epochs or 0) * count_visits(plan) / config.batch))


def weighs(objective: Objective, config: TrustConfig) -> bool:
    """Tell whether trust weighs the samples; raise InputError if rounds would learn nothing from each other."""
    weigh = objective.trusts if config.weigh is None else config.weigh
    if config.rounds > 1 and not weigh:
        raise InputError(
            f"trust.rounds is {config.rounds}, but the objective does not weigh samples by trust, so that each round "
            "would only repeat the first: set trust.weigh=true or objective=acl"
        )
    return weigh


def train(
    learner: Learner,
    plan: Plan,
    config: TrainConfig,
    trust: Trust,
    *,
    run_dir: Path,
    resume: bool = False,
    rates: Mapping[int, float] | None = None,
) -> None:
    """Train learner and trust in place and leave metrics, unreadable samples and checkpoints in the run folder.

    Every step is a function of the seed, the step and the weights before it, so a run that was killed at any moment
    resumes to the same bits.

    Args:
        rates: id of a parameter -> its learning rate, relative to `config.lr`; 1 if not given.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.backends.cudnn.deterministic = True  # convolutions on a GPU: the same bits, in the same time
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # or Accelerate sees one process only
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # a batch holds some modalities
    )
    groups = list(parameter_groups(learner, config.weight_decay, rates or {}))
    if not any(one.requires_grad for one in learner.binder.parameters()):
        raise InputError("nothing learns: every encoder is frozen and has no head; give one a head, or let it learn")
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    each = count_steps(plan, config)
    total = trust.config.rounds * each
    untrained = copy.deepcopy(learner.state_dict()) if trust.config.rounds > 1 else {}
    start, cursors = restore_checkpoint(run_dir / "checkpoints", learner, optimizer, trust) if resume else (0, {})
    model, optimizer = accelerator.prepare(learner, optimizer)
    device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes
    if config.batch < world:
        raise InputError(f"train.batch is {config.batch}, which is less than one sample for each of {world} processes")

    encoders = {name: learner.binder.encoder(name) for name in learner.binder.encoders}
    feed = Feed(plan.supplies, encoders, learner.binder.modalities, seed=plan.seed)
    tickets = plan.tickets(start=start, stop=total, rank=rank, world=world, cursors=cursors)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(config.precision))
    weigh = weighs(learner.objective, trust.config)
    chance = learner.objective.loss_at_chance(config.batch)
    patience = min(MANY, sum(len(one.source) if isinstance(one.source, MapSource) else MANY for one in plan.supplies))
    is_main = accelerator.is_main_process
    lost, value = 0, math.nan
    tally: Counter[str] = Counter()
    model.train()
    with RunLog(run_dir, start, enabled=is_main) as log, progress(total, start, enabled=is_main) as advance:
        accelerator.wait_for_everyone()
        if plan.left_out:
            log.warn(
                f"{plan.left_out:,} samples are left out: the objective takes none of their items together, "
                "or fewer than train.batch others have them"
            )
        waited = time.perf_counter()
        for step, batch in enumerate(batches(feed, tickets, workers=config.workers), start):
            began = time.perf_counter()
            keys, unreadable = share(batch.keys, batch.unreadable)
            log.unreadable(step, unreadable)
            if batch.cursor:
                cursors[batch.supply] = batch.cursor
            lost += len(unreadable)
            read = (step + 1 - start) * config.batch
            if lost > config.max_unreadable * read and (read >= patience or step + 1 == total):
                raise InputError(
                    f"{lost} of {read} samples can't be read, train.max_unreadable is {config.max_unreadable}; "
                    f"{log.rows_path} says which and why"
                )
            torch.manual_seed((plan.seed * 1_000_003 + step) * world + rank)  # dropout and kin
            if step and step % each == 0:  # all but trust begins anew
                learner.load_state_dict(untrained)
                optimizer.state.clear()
            rate = learning_rate(step % each, each, config)
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate * parameters["rate"]

            if all(keys):  # every process has a sample
                inputs = {name: to_device(one, device) for name, one in batch.inputs.items()}
                weight = batch.weight
                if weigh:
                    trusted = trust.weights(hash64(batch.keys), kind=batch.kind, progress=min(1, step / each))
                    weight = weight * torch.from_numpy(trusted)
                with autocast:
                    loss, agreement, spread = model(inputs, weight.to(device), batch.group.to(device))
                accelerator.backward(loss)
                norm = accelerator.clip_grad_norm_(model.parameters(), config.clip)
                value, size = loss.item(), float(norm)
                if not math.isfinite(value + size):
                    raise InputError(
                        f"at step {step} the loss is {value} and the norm of its gradient {size}: train into another "
                        "folder with run=OTHER and a lower train.lr, or with train.precision=fp32"
                    )
                optimizer.step()
                optimizer.zero_grad()
                if step < each or step % each >= config.warmup * each:  # untrained weights know less than trust does
                    seen = hash64(itertools.chain(*keys))
                    trust.update(seen, agreement.float().cpu().numpy(), kind=batch.kind)
                ended = time.perf_counter()
                log.add(
                    loss=value, agreement=agreement.mean().item(), spread=spread.item(), gradient_norm=size,
                    seconds=ended - waited, waiting=(began - waited) / (ended - waited),
                )  # fmt: skip
                if len(plan.supplies) > 1:
                    log.note(f"loss of sources.{batch.supply}", value)
                    log.count({f"sources.{batch.supply}/batches": 1})
                for name, one in batch.inputs.items():
                    tally.update({f"{name}/{what}": count for what, count in encoders[name].tally(one).items()})

            due = step + 1 == total or (config.checkpoint_every and (step + 1) % config.checkpoint_every == 0)
            if due or (step + 1) % config.log_every == 0:
                for position, supply in enumerate(plan.supplies):
                    lines = supply.source.skipped
                    log.unreadable(step, [(full_key(plan.supplies, position, key), reason) for key, reason in lines])
                log.count(add_counts(tally))
                tally.clear()
                speed = config.batch / (log.mean("seconds") or math.inf)
                means = log.write(step + 1, lr=rate, samples_per_second=speed)
                if means and step % each > max(each * max(config.warmup, 0.2), 50):
                    log.warn(diagnose(means["loss"], means["spread"], chance))
            if due and is_main:
                save_checkpoint(run_dir / "checkpoints", step + 1, learner, optimizer, trust, cursors)
            advance(value)
            waited = time.perf_counter()


def uses_bf16(precision: str) -> bool:
    """Tell whether to multiply in bf16; auto does where the hardware is faster at it."""
    if precision != "auto":
        return precision == "bf16"
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Return the rate of a step: linear warm-up, a plateau if any, half a cosine to 0.

    Without a plateau it is Loshchilov and Hutter 2017, eq. 5, with one warm-up, stable, decay (Hu et al. 2024, eq. 1).
    """
    warm = config.warmup * total
    if step < warm:
        return config.lr * (step + 1) / (warm + 1)
    begin = max(warm, (1 - config.decay) * total)
    return config.lr * (1 + math.cos(math.pi * max(0, step - begin) / (total - begin))) / 2
