"""A hand-written loop with minift's parts against the same loop with the peers' parts.

Dropout 0, fp32, CPU, one process, no accumulation: transformers scales the loss of a classifier by
the number of accumulated batches, so nothing else could agree.
"""

import numpy as np
import pytest
import torch
import transformers
from live import assert_near, peer_model, random_plan

from minift import AdamW, AutoModelForSequenceClassification, get_scheduler

STEPS = 20


def batches(plan, seed):
    """STEPS right-padded batches of 8 rows, of changing length."""
    rng = np.random.default_rng(seed)
    for _ in range(STEPS):
        width = int(rng.integers(4, 30))
        lengths = rng.integers(2, width + 1, 8)
        mask = np.arange(width) < lengths[:, None]
        ids = np.where(mask, rng.integers(5, plan["vocab_size"], (8, width)), 0)
        labels = rng.integers(0, plan["num_labels"], 8)
        yield {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
            "labels": torch.from_numpy(labels),
        }


def groups_of(model):
    """Weight decay for matrices only, by name, so that both models get the same groups."""
    named = list(model.named_parameters())
    plain = [p for name, p in named if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in named if not (name.endswith("bias") or "LayerNorm" in name)]
    return [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]


def train(model, optimizer, scheduler, plan):
    """The losses of STEPS steps with clipping at 1."""
    losses = []
    model.train()
    for batch in batches(plan, 77):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant_with_warmup"])
def test_twenty_steps(tmp_path, kind):
    plan = random_plan(41) | {"num_labels": 3}
    plan |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    theirs = peer_model(plan, 41)
    theirs.save_pretrained(tmp_path)
    ours = AutoModelForSequenceClassification.from_pretrained(tmp_path)

    optimizer = torch.optim.AdamW(groups_of(theirs), lr=1e-3, foreach=False, fused=False)
    scheduler = transformers.get_scheduler(kind, optimizer, 3, STEPS)
    want = train(theirs, optimizer, scheduler, plan)

    optimizer = AdamW(groups_of(ours), lr=1e-3)
    scheduler = get_scheduler(
        kind, optimizer=optimizer, num_warmup_steps=3, num_training_steps=STEPS
    )
    got = train(ours, optimizer, scheduler, plan)

    assert_near(got, want, "losses", tolerance=1e-4)
    # Weights only where gradients are not rounding noise: the true gradient of a key's bias is
    # zero, and AdamW makes whole steps out of its noise.
    theirs_now = dict(theirs.named_parameters())
    for name, p in ours.named_parameters():
        if not name.endswith("key.bias"):
            assert_near(p, theirs_now[name], name, tolerance=1e-3)


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("polynomial", None),
        ("polynomial", {"power": 2.0, "lr_end": 1e-5}),
        ("inverse_sqrt", None),
        ("inverse_sqrt", {"timescale": 7}),
        ("linear", None),
        ("cosine", None),
        ("constant", None),
        ("constant_with_warmup", None),
    ],
)
def test_schedules_are_those_of_transformers(kind, settings, warmup):
    """Learning rates of twenty updates, and of some beyond the last."""

    def rates(get):
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
        scheduler = get(kind, optimizer, warmup, 20, settings)
        for _ in range(24):
            yield optimizer.param_groups[0]["lr"]
            optimizer.step()
            scheduler.step()

    want = list(rates(transformers.get_scheduler))
    assert list(rates(get_scheduler)) == pytest.approx(want, rel=1e-12, abs=0)


def test_label_smoothing_is_that_of_transformers():
    """Loss and gradient for random logits, with rows that have no label."""
    from transformers.trainer_pt_utils import LabelSmoother

    from minift.training.losses import smoothed_loss

    generator = torch.Generator().manual_seed(5)
    labels = torch.tensor([0, 2, -100, 1, 1, -100, 2, 0])
    raw = torch.randn(8, 3, generator=generator)
    theirs, ours = raw.clone().requires_grad_(), raw.clone().requires_grad_()
    want = LabelSmoother(epsilon=0.1)({"logits": theirs}, labels.clone())
    outputs = transformers.modeling_outputs.SequenceClassifierOutput(logits=ours)
    total, count = smoothed_loss(0.1)(outputs, {"labels": labels})
    (total / count).backward()
    want.backward()
    assert count == 6
    assert_near(total / count, want, 1e-6)
    assert_near(ours.grad, theirs.grad, 1e-6)
