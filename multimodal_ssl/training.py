"""The training loop, from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from multimodal_ssl.binder import Binder, to_device
from multimodal_ssl.checkpoint import restore_checkpoint, save_checkpoint
from multimodal_ssl.config import TrainConfig
from multimodal_ssl.data import Feed, batches
from multimodal_ssl.distributed import gather
from multimodal_ssl.errors import InputError
from multimodal_ssl.health import diagnose
from multimodal_ssl.plan import Plan, count_samples
from multimodal_ssl.runlog import RunLog, progress
from multimodal_ssl.types import Inputs, Objective

MANY = 1000  # samples, before the share of unreadable ones says something


class Learner(nn.Module):
    """Binder and objective in one module, so that one call makes the loss and one wrapper distributes it."""

    def __init__(self, binder: Binder, objective: Objective) -> None:
        super().__init__()
        self.binder, self.objective = binder, objective

    def forward(self, inputs: Mapping[str, Inputs], weight: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss, the agreement of this process's samples [b] and the spread of the views (see health)."""
        views, weight, group, own = gather(self.binder(inputs), weight, group)
        loss, agreement = self.objective(views, weight, group)
        with torch.no_grad():
            spread = torch.stack([1 - view.mean(0).square().sum() for view in views.values()]).min()
        return loss, agreement[own], spread


def train(learner: Learner, plan: Plan, config: TrainConfig, *, run_dir: Path, resume: bool) -> None:
    """Train in place and leave metrics, unreadable samples and checkpoints in the run folder.

    Every step is a function of the seed, the step and the weights before it, so a run that was killed at any moment
    resumes to the same bits.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    accelerator = Accelerator(
        cpu=not torch.accelerator.is_available(),  # or Accelerate sees one process only
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # a batch holds some modalities
    )
    optimizer = torch.optim.AdamW(parameter_groups(learner, config.weight_decay), betas=(0.9, 0.98), fused=True)
    total = config.steps or max(1, round((config.epochs or 0) * count_samples(plan.supplies) / config.batch))
    start = restore_checkpoint(run_dir / "checkpoints", learner, optimizer) if resume else 0
    model, optimizer = accelerator.prepare(learner, optimizer)
    device, rank, world = accelerator.device, accelerator.process_index, accelerator.num_processes

    encoders = {name: learner.binder.encoder(name) for name in learner.binder.encoders}
    feed = Feed(plan.supplies, encoders, learner.binder.modalities, seed=plan.seed)
    tickets = plan.tickets(start=start, stop=total, rank=rank, world=world)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bf16(config.precision))
    log = RunLog(run_dir, start, enabled=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        for supply in plan.supplies:
            log.unreadable(supply.source.skipped)

    read = lost = 0
    model.train()
    with progress(total, start, enabled=accelerator.is_main_process) as advance:
        waited = time.perf_counter()
        for step, batch in enumerate(batches(feed, tickets, workers=config.workers), start):
            began = time.perf_counter()
            log.unreadable(batch.unreadable)
            read += len(batch.keys)
            lost += len(batch.unreadable)
            if not batch.keys or (lost > config.max_unreadable * (read + lost) and read + lost >= MANY):
                raise InputError(
                    f"{lost} of {read + lost} samples can't be read, train.max_unreadable is {config.max_unreadable}; "
                    f"{log.unreadable_path} says which and why"
                )
            torch.manual_seed(plan.seed * 1_000_003 + step)  # dropout and kin
            rate = learning_rate(step, total, config)
            for parameters in optimizer.param_groups:
                parameters["lr"] = rate

            inputs = {name: to_device(one, device) for name, one in batch.inputs.items()}
            with autocast:
                loss, agreement, spread = model(inputs, batch.weight.to(device), batch.group.to(device))
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(model.parameters(), config.clip)
            optimizer.step()
            optimizer.zero_grad()

            value = loss.item()
            if not math.isfinite(value):
                raise InputError(
                    f"the loss is {value} at step {step}: lower train.lr or train.clip, or set train.precision=fp32; "
                    f"--resume goes on from the last checkpoint in {run_dir / 'checkpoints'}"
                )
            ended = time.perf_counter()
            log.add(
                loss=value, agreement=agreement.mean().item(), spread=spread.item(), gradient_norm=float(norm),
                seconds=ended - waited, waiting=(began - waited) / (ended - waited),
            )  # fmt: skip
            for name, one in batch.inputs.items():
                log.count(name, encoders[name].tally(one))
            if (step + 1) % config.log_every == 0 or step + 1 == total:
                means = log.write(step + 1, lr=rate, samples_per_second=config.batch / log.mean("seconds"))
                if step > total * max(config.warmup, 0.2) and step > 50:
                    log.warn(diagnose(means["loss"], means["spread"], config.batch))
            due = step + 1 == total or (config.checkpoint_every and (step + 1) % config.checkpoint_every == 0)
            if due and accelerator.is_main_process:
                save_checkpoint(run_dir / "checkpoints", step + 1, learner, optimizer)
            advance(value)
            waited = time.perf_counter()
    log.close()


def uses_bf16(precision: str) -> bool:
    """Tell whether to multiply in bf16; auto does where the hardware is faster at it."""
    if precision != "auto":
        return precision == "bf16"
    return torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_amx_tile_supported()


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Return the rate of a step: linear warm-up, then a cosine to 0 (Loshchilov and Hutter 2017, eq. 5)."""
    warm = config.warmup * total
    if step < warm:
        return config.lr * (step + 1) / (warm + 1)
    return config.lr * (1 + math.cos(math.pi * (step - warm) / (total - warm))) / 2


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return matrices with weight decay; biases, norms and temperatures without."""
    trained = [one for one in model.parameters() if one.requires_grad]
    return [
        {"params": [one for one in trained if one.ndim >= 2], "weight_decay": weight_decay},
        {"params": [one for one in trained if one.ndim < 2], "weight_decay": 0.0},
    ]
