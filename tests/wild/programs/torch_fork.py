# SPDX-License-Identifier: Apache-2.0
"""Computes a layer and its gradient with PyTorch in children: idle, or while another thread computes
the same: torch_fork.py idle|flight"""
import contextlib
import sys

import torch

import wild

torch.manual_seed(1)
layer = torch.nn.Linear(400, 400)
data = torch.randn(400, 400)


def compute():
    loss = torch.nn.functional.gelu(layer(data)).sum()
    return [g.numpy() for g in torch.autograd.grad(loss, layer.parameters())]


with wild.in_flight(compute) if sys.argv[1] == "flight" else contextlib.nullcontext():
    wild.fork_and_compare(compute)
