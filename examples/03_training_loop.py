"""Write the training loop by hand, then with an Accelerator (the HF course, chapter 3, section 4).

python examples/03_training_loop.py                      # the pairs and weights of the demo
python examples/03_training_loop.py --dataset FOLDER     # MRPC or your own data, a file per split
"""

import argparse

import torch
from torch.utils.data import DataLoader

from minift import (
    Accelerator,
    AdamW,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    DatasetDict,
    evaluate,
    get_scheduler,
    load_dataset,
    set_seed,
)

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", default="headlines", help="a name, or a folder with the splits")
parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2", help="the pretrained model")
parser.add_argument("--device", default="auto", help="for the second loop; see `minift plugins`")
parser.add_argument(
    "--max-steps", type=int, default=0, help="stop each loop after this many updates"
)
args = parser.parse_args()

raw_datasets = load_dataset(args.dataset)
# GLUE's test split has no labels, so it is of no use here.
raw_datasets = DatasetDict({split: raw_datasets[split] for split in ("train", "validation")})
tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)


def tokenize_function(example):
    return tokenizer(example["sentence1"], example["sentence2"], truncation=True)


tokenized_datasets = raw_datasets.map(tokenize_function, batched=True)
data_collator = DataCollatorWithPadding(tokenizer=tokenizer)

# The Trainer prepares the columns itself; here we do it. Remove those that the model does not take,
# rename "label" to "labels", as the model calls it, and read rows as tensors.
model_inputs = [*tokenizer.model_input_names, "label"]
unused = [name for name in tokenized_datasets["train"].column_names if name not in model_inputs]
tokenized_datasets = tokenized_datasets.remove_columns(unused)
tokenized_datasets = tokenized_datasets.rename_column("label", "labels")
tokenized_datasets.set_format("torch")
print(tokenized_datasets["train"].column_names)


def prepare_training():
    """Return new dataloaders, model and optimizer; both loops below start from the same seed."""
    set_seed(42)
    train_dataloader = DataLoader(
        tokenized_datasets["train"], shuffle=True, batch_size=16, collate_fn=data_collator
    )
    eval_dataloader = DataLoader(
        tokenized_datasets["validation"], batch_size=16, collate_fn=data_collator
    )
    model = AutoModelForSequenceClassification.from_pretrained(args.checkpoint, num_labels=2)
    return train_dataloader, eval_dataloader, model, AdamW(model.parameters(), lr=1e-4)


num_epochs = 1

# Of the second loop. It is made here because with XLA all gradients of a process would fail if the
# first had been computed before XLA was there.
accelerator = Accelerator(gradient_accumulation_steps=2, device=args.device)

# ------------------------------------------------------------------------------- 1. in plain torch

train_dataloader, eval_dataloader, model, optimizer = prepare_training()
batch = next(iter(train_dataloader))
print({name: tuple(tensor.shape) for name, tensor in batch.items()})
outputs = model(**batch)  # the batch has labels, so there is a loss too
print(outputs.loss, outputs.logits.shape)

num_training_steps = args.max_steps or num_epochs * len(train_dataloader)
lr_scheduler = get_scheduler(
    "linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=num_training_steps
)
step = 0
model.train()
for _ in range(num_epochs):
    for batch in train_dataloader:
        if step == num_training_steps:
            break
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        step += 1
        if step % 50 == 0:
            print(f"step {step} of {num_training_steps}: loss {loss.item():.4f}")

metric = evaluate.load("glue", "mrpc")
model.eval()
for batch in eval_dataloader:
    with torch.no_grad():
        logits = model(**batch).logits
    metric.add_batch(predictions=logits.argmax(dim=-1), references=batch["labels"])
print("by hand:", metric.compute())

# -------------------------------------------------------------------------- 2. with an Accelerator

# The same loop on any device and in any precision, with gradient accumulation (two batches for each
# update). The order of rows and dropout depend on the seed alone. "new" marks lines that change.
train_dataloader, eval_dataloader, model, optimizer = prepare_training()
# Several processes share the batches. A schedule's length is taken before that, and counts for all.
num_training_steps = num_epochs * -(-len(train_dataloader) // 2)
if args.max_steps:
    num_training_steps = args.max_steps * accelerator.num_processes
lr_scheduler = get_scheduler(
    "linear", optimizer=optimizer, num_warmup_steps=0, num_training_steps=num_training_steps
)
train_dataloader, eval_dataloader, model, optimizer, lr_scheduler = accelerator.prepare(  # new
    train_dataloader, eval_dataloader, model, optimizer, lr_scheduler
)

step = 0
model.train()
for _ in range(num_epochs):
    for batch in train_dataloader:
        if args.max_steps and step == args.max_steps:
            break
        with accelerator.accumulate(model):  # new
            outputs = model(**batch)
            accelerator.backward(outputs)  # new; do not divide the loss by 2
            accelerator.clip_grad_norm_(model.parameters(), 1.0)  # new; the Trainer clips too
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
        step += accelerator.sync_gradients
        if accelerator.sync_gradients and step % 25 == 0:
            accelerator.print(f"update {step}: loss {outputs.loss.item():.4f}")

metric = evaluate.load("glue", "mrpc")
model.eval()
for batch in eval_dataloader:
    with torch.no_grad():
        logits = model(**batch).logits
    predictions, labels = accelerator.gather_for_metrics(  # new; collects the rows of all processes
        (logits.argmax(dim=-1), batch["labels"])
    )
    metric.add_batch(predictions=predictions, references=labels)
accelerator.print("with an Accelerator:", metric.compute())

accelerator.wait_for_everyone()
accelerator.save_model(model, "runs/loop")
