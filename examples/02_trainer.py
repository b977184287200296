"""Fine-tune a model on sentence pairs with the Trainer (the HF course, chapter 3, section 3).

python examples/02_trainer.py                      # the pairs and weights of the demo
python examples/02_trainer.py --dataset FOLDER     # MRPC or your own data, a file per split
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
parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2", help="the pretrained model")
parser.add_argument(
    "--device", default="auto", help="where to train; `minift plugins` lists the devices"
)
parser.add_argument("--max-steps", type=int, default=-1, help="stop after this many updates")
args = parser.parse_args()

raw_datasets = load_dataset(args.dataset)
tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)


def tokenize_function(example):
    return tokenizer(example["sentence1"], example["sentence2"], truncation=True)


tokenized_datasets = raw_datasets.map(tokenize_function, batched=True)
data_collator = DataCollatorWithPadding(tokenizer=tokenizer)


# Called after each evaluation with the logits and labels of all its rows. The results are logged as
# eval_accuracy and eval_f1.
def compute_metrics(eval_preds):
    metric = evaluate.load("glue", "mrpc")
    logits, labels = eval_preds
    predictions = np.argmax(logits, axis=-1)
    return metric.compute(predictions=predictions, references=labels)


# Evaluate after each epoch, keep the checkpoint with the best F1, and stop after two evaluations
# without improvement. (One epoch shows that it works; for MRPC three are usual.)
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
# The encoder is pretrained. The classification head is new: its weights are random, from a fixed
# seed.
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

# Predict returns the logits and the true labels, in the order of the dataset.
predictions = trainer.predict(tokenized_datasets["validation"])
print(predictions.predictions.shape, predictions.label_ids.shape)
print(predictions.metrics)
