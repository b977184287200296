"""Loops through accelerate and transformers, and through minift's Accelerator.

Dropout 0, fp32, CPU, one process, the same weights and the same order of rows: the only differences
left are rounding, and those that are on purpose (minift/FROM_HUGGING_FACE.md).
"""

import sys
from dataclasses import replace
from pathlib import Path

import accelerate
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from live import assert_near, peer_model, random_plan
from torch.utils.data import DataLoader

import minift

sys.path.insert(0, str(Path(__file__).parent.parent))  # for `orders`
import orders

from minift.training.batches import row_order

ROWS, BATCH, STEPS, SEED = 37, 8, 10, 42  # two epochs of five steps, the last of five rows


class Rows(torch.utils.data.Dataset):
    """Token rows of changing length, as lists."""

    def __init__(self, plan):
        generator = torch.Generator().manual_seed(3)
        self.rows = []
        for _ in range(ROWS):
            n = int(torch.randint(3, 30, (), generator=generator))
            ids = torch.randint(5, plan["vocab_size"], (n,), generator=generator)
            label = int(torch.randint(0, plan["num_labels"], (), generator=generator))
            self.rows.append((ids, label))

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, row):
        return self.rows[row]


def collate(rows):
    """Right-padded tensors."""
    ids = torch.nn.utils.rnn.pad_sequence([ids for ids, _ in rows], batch_first=True)
    labels = torch.tensor([label for _, label in rows])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def course_loop(accelerator, model, get_scheduler, epochs, clip):
    """The losses of STEPS steps; `epochs` are the loaders of one epoch each."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, *epochs = accelerator.prepare(model, optimizer, *epochs)
    lr_scheduler = get_scheduler(
        "linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=STEPS
    )
    losses = []
    model.train()
    for train_dataloader in epochs:
        for batch in train_dataloader:
            outputs = model(**batch)
            loss = outputs.loss
            accelerator.backward(loss)
            if clip:
                accelerator.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert len(losses) == STEPS
    return losses


@pytest.mark.parametrize("clip", [None, 0.1])
def test_ten_steps_of_the_course(tmp_path, clip):
    plan = random_plan(41) | {"num_labels": 3}
    plan |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    theirs = peer_model(plan, 41)
    theirs.save_pretrained(tmp_path)
    ours = minift.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    rows = Rows(plan)

    in_order = [
        DataLoader(rows, batch_size=BATCH, sampler=row_order(ROWS, SEED, e), collate_fn=collate)
        for e in range(2)
    ]
    peer = accelerate.Accelerator(cpu=True)
    want = course_loop(peer, theirs, transformers.get_scheduler, in_order, clip)

    minift.set_seed(SEED)
    shuffled = DataLoader(rows, shuffle=True, batch_size=BATCH, collate_fn=collate)
    helper = minift.Accelerator(cpu=True)
    shuffled = helper.prepare(shuffled)
    got = course_loop(helper, ours, minift.get_scheduler, [shuffled] * 2, clip)
    assert_near(got, want, "losses")


def of_the_peer(program):
    """A program carried out by accelerate, whose state belongs to the process."""
    accelerate.state.GradientState._reset_state()
    return orders.run(
        program, accelerate.Accelerator(gradient_accumulation_steps=program.group, cpu=True)
    )


PROGRAMS = st.builds(
    orders.Program,
    rows=st.integers(3, 26),
    size=st.integers(1, 5),
    group=st.integers(1, 4),
    part=st.integers(1, 3),
    way=st.sampled_from(orders.WAYS),
    place=st.sampled_from(orders.PLACES),
    leave=st.booleans(),
    stop=st.integers(0, 2),
    by_logits=st.booleans(),
)


@settings(max_examples=150, deadline=None)
@given(PROGRAMS)
def test_a_loop_in_any_order_is_what_arithmetic_says(program):
    """In minift it is the batch that says what a loss is of, so that no order is special."""
    got = orders.run(program, minift.Accelerator(program.group, cpu=True))
    want = orders.expected(program)
    assert (got["updates"], got["rows"]) == (want["updates"], want["rows"])
    for ours, right in zip(got["weights"], want["weights"], strict=True):
        assert_near(ours, right, "weights", 1e-5)


@settings(max_examples=150, deadline=None)
@given(PROGRAMS)
def test_where_the_loader_is_its_own_state_accelerate_does_the_same(program):
    """Batches one by one, and evaluations that run to their end."""
    program = replace(program, way="plain", leave=False)
    got, want = (
        orders.run(program, minift.Accelerator(program.group, cpu=True)),
        of_the_peer(program),
    )
    assert {**got, "weights": None} == {**want, "weights": None}
    whole = not program.stop and program.rows % (program.size * program.group) == 0
    if whole or program.group == 1:
        for ours, theirs in zip(got["weights"], want["weights"], strict=True):
            assert_near(ours, theirs, "weights", 1e-5)


@pytest.mark.parametrize(
    ("program", "updates", "of_accelerate"),
    [
        (orders.Program(20, 4, 2, "list"), [0, 1, 0, 1, 1], [0, 1, 0, 1, 0]),
        (orders.Program(20, 4, 2, "ahead"), [0, 1, 0, 1, 1], [0, 1, 0, 1, 0]),
        (orders.Program(8, 4, 2, "slices"), [0, 1, 0, 1], [0, 1, 1, 1]),
        (orders.Program(20, 4, 2, place="backward", leave=True), [0, 1, 0, 1, 1], [0, 1, 0, 1, 0]),
    ],
)
def test_where_accelerate_loses_count(program, updates, of_accelerate):
    """What differs on purpose: the first epoch of each."""
    n = len(updates)
    assert of_the_peer(program)["updates"][:n] == of_accelerate
    assert orders.run(program, minift.Accelerator(2, cpu=True))["updates"][:n] == updates
