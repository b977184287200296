"""Fine-tune a classifier on sentence pairs, the way the Hugging Face course (chapter 3) does.

python examples/01_trainer.py                      # the demo's own pairs and weights
python examples/01_trainer.py --dataset FOLDER     # GLUE's MRPC files, or your own
"""

import argparse

import numpy as np

from minift import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    evaluate,
    load_dataset,
)

parser = argparse.ArgumentParser()
parser.add_argument("--dataset", default="headlines")
parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2")
parser.add_argument("--device", default="auto")
parser.add_argument("--max-steps", type=int, default=-1)
args = parser.parse_args()

raw_datasets = load_dataset(args.dataset)
print(raw_datasets)

tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)


def tokenize_function(example):
    return tokenizer(example["sentence1"], example["sentence2"], truncation=True)


tokenized_datasets = raw_datasets.map(tokenize_function, batched=True)
data_collator = DataCollatorWithPadding(tokenizer=tokenizer)


def compute_metrics(eval_preds):
    metric = evaluate.load("glue", "mrpc")
    logits, labels = eval_preds
    predictions = np.argmax(logits, axis=-1)
    return metric.compute(predictions=predictions, references=labels)


training_args = TrainingArguments(
    "runs/example",
    eval_strategy="epoch",
    num_train_epochs=1,
    per_device_train_batch_size=16,
    learning_rate=1e-4,
    device=args.device,
    max_steps=args.max_steps,
)
model = AutoModelForSequenceClassification.from_pretrained(args.checkpoint, num_labels=2)

trainer = Trainer(
    model,
    training_args,
    train_dataset=tokenized_datasets["train"],
    eval_dataset=tokenized_datasets["validation"],
    data_collator=data_collator,
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
)
trainer.train()

predictions = trainer.predict(tokenized_datasets["validation"])
print(predictions.predictions.shape, predictions.label_ids.shape)
print(predictions.metrics)
