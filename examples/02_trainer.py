"""Fine-tune a classifier of sentence pairs with the Trainer (the HF course, chapter 3, section 3).

python examples/02_trainer.py                      # the demo's own pairs and weights
python examples/02_trainer.py --dataset FOLDER     # MRPC: a folder of GLUE's files, or yours
"""

import argparse

import numpy as np

from minift import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EarlyStoppingCallback,
    Trainer,
    TrainingArguments,
    evaluate,
    load_dataset,
)

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", default="headlines", help="a name, or a folder with the splits")
parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2", help="a model to begin with")
parser.add_argument("--device", default="auto", help="see `minift plugins`")
parser.add_argument("--max-steps", type=int, default=-1, help="only so many updates")
args = parser.parse_args()

raw_datasets = load_dataset(args.dataset)
tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)


def tokenize_function(example):
    return tokenizer(example["sentence1"], example["sentence2"], truncation=True)


tokenized_datasets = raw_datasets.map(tokenize_function, batched=True)
data_collator = DataCollatorWithPadding(tokenizer=tokenizer)


# Given the logits and labels of all rows of the evaluation split; its numbers are logged as eval_*.
def compute_metrics(eval_preds):
    metric = evaluate.load("glue", "mrpc")
    logits, labels = eval_preds
    predictions = np.argmax(logits, axis=-1)
    return metric.compute(predictions=predictions, references=labels)


# Evaluate after each epoch, keep the model with the best F1, and stop when the next two are no
# better. (One epoch, as here, is for a look; MRPC is usually given three.)
training_args = TrainingArguments(
    "runs/example",
    eval_strategy="epoch",
    save_strategy="epoch",
    save_total_limit=1,
    load_best_model_at_end=True,
    metric_for_best_model="f1",
    num_train_epochs=1,
    per_device_train_batch_size=16,
    learning_rate=1e-4,
    device=args.device,
    max_steps=args.max_steps,
)
# The head is new: two rows of weights, drawn from a seed. The rest is pretrained.
model = AutoModelForSequenceClassification.from_pretrained(args.checkpoint, num_labels=2)

trainer = Trainer(
    model,
    training_args,
    train_dataset=tokenized_datasets["train"],
    eval_dataset=tokenized_datasets["validation"],
    data_collator=data_collator,
    processing_class=tokenizer,
    compute_metrics=compute_metrics,
    callbacks=[EarlyStoppingCallback(early_stopping_patience=2)],
)
trainer.train()
print("best F1:", trainer.state.best_metric, "at step", trainer.state.best_step)

# Logits in the order of the rows, and the labels that they should have given.
predictions = trainer.predict(tokenized_datasets["validation"])
print(predictions.predictions.shape, predictions.label_ids.shape)
print(predictions.metrics)
