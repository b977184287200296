"""From raw sentence pairs to padded batches (the Hugging Face course, chapter 3, section 2).

python examples/01_process_data.py                      # the demo's own pairs
python examples/01_process_data.py --dataset FOLDER     # MRPC: a folder of GLUE's files, or yours
"""

import argparse

from torch.utils.data import DataLoader

from minift import AutoTokenizer, DataCollatorWithPadding, load_dataset

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", default="headlines", help="a name, or a folder with the splits")
parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2", help="whose tokenizer to use")
parser.add_argument("--device", default="cpu", help="nothing is computed here, so it has no part")
parser.add_argument("--rows", type=int, default=0, help="only so many of each split")
args = parser.parse_args()

# A dataset is a dict of splits. A split is a table in a file, mapped into memory: what you do not
# look at is not read.
raw_datasets = load_dataset(args.dataset)
if args.rows:
    for split, rows in raw_datasets.items():
        raw_datasets[split] = rows.select(range(min(args.rows, len(rows))))
print(raw_datasets)

raw_train_dataset = raw_datasets["train"]
print(raw_train_dataset.features)  # the columns and their types; a ClassLabel knows its names
print(raw_train_dataset[0])

# A tokenizer makes one row of ids of a pair; token_type_ids, of models that have them, say which
# sentence a token is of.
tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
row = raw_train_dataset[0]
inputs = tokenizer(row["sentence1"], row["sentence2"])
print(inputs)
print(tokenizer.convert_ids_to_tokens(inputs["input_ids"]))


# No padding yet: how long a row must be depends on the others of its batch.
def tokenize_function(example):
    return tokenizer(example["sentence1"], example["sentence2"], truncation=True)


# map adds the function's columns. With batched=True it is given a thousand rows at a time, which
# the tokenizer handles on all cores; the result is kept, so that the next call takes no time.
tokenized_datasets = raw_datasets.map(tokenize_function, batched=True)
print(tokenized_datasets)

# The collator pads the rows of one batch to the longest of them.
data_collator = DataCollatorWithPadding(tokenizer=tokenizer)
samples = tokenized_datasets["train"][:8]
samples = {name: values for name, values in samples.items() if name in tokenizer.model_input_names}
print("tokens in each row:", [len(ids) for ids in samples["input_ids"]])
batch = data_collator(samples)
print("one batch:", {name: tuple(tensor.shape) for name, tensor in batch.items()})

# The same for a whole split; the text columns have to go first, as they are no tensors.
columns = [*tokenizer.model_input_names, "label"]
train_dataloader = DataLoader(
    tokenized_datasets["train"].select_columns(columns), batch_size=8, collate_fn=data_collator
)
widths = [batch["input_ids"].shape[1] for batch in train_dataloader]
print("tokens in a row of each batch:", widths[:10])
