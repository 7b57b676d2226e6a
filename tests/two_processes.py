"""One training step by two processes, for tests/test_distributed.py: of several losses."""

import sys
from dataclasses import asdict
from pathlib import Path

import torch
from lightning_fabric import Fabric

from earshot.batches import Batch
from earshot.train.objective import build_objective
from earshot.train.recipe import LossConfig
from earshot.train.step import add_over_processes, backward

if __name__ == "__main__":
    stored = torch.load(sys.argv[1], weights_only=False)  # Made by the test itself.
    fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
    fabric.launch()
    network, whole, judged = stored["network"], stored["batch"], stored["judged"]
    share = len(whole["clip_ids"]) // 2
    span = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
    tokens = {name: ids[span] for name, ids in whole.pop("tokens").items()}
    batch = Batch(**{name: values[span] for name, values in whole.items()}, tokens=tokens)
    found = []
    for given in stored["losses"]:
        config = LossConfig(**asdict(given))
        teachers = (
            (lambda clips, captions: judged[clips][:, captions])
            if (config.distillation_weight)
            else None
        )
        network.zero_grad()
        objective = build_objective(config, network, torch.Generator().manual_seed(3), teachers)
        loss = backward(network, batch, objective, fabric)
        stop = fabric.global_rank == 1 and not found
        assert add_over_processes(network, fabric, stop=stop) == (not found), "all hear of it"
        gradients = {n: w.grad.clone() for n, w in network.named_parameters() if w.grad is not None}
        found.append((loss, gradients))
    torch.save(found, Path(sys.argv[1]).with_name(f"rank{fabric.global_rank}.pt"))
