"""The course's loop through accelerate and transformers, and through minift's Accelerator.

Dropout 0, fp32, CPU, one process, no accumulation, the same folder and the same order of rows: the
only differences left are rounding.
"""

import accelerate
import pytest
import torch
import transformers
from live import assert_near, peer_model, random_plan
from torch.utils.data import DataLoader

import minift
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
