"""Process sentence pairs into padded batches (the Hugging Face course, chapter 3, section 2).

python examples/01_process_data.py                      # the pairs of the demo
python examples/01_process_data.py --dataset FOLDER     # MRPC or your own data, a file per split
"""

import argparse

from torch.utils.data import DataLoader

from minift import AutoTokenizer, DataCollatorWithPadding, load_dataset

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--dataset", default="headlines", help="a name, or a folder with the splits")
parser.add_argument(
    "--checkpoint", default="all-MiniLM-L6-v2", help="the model whose tokenizer to use"
)
parser.add_argument("--device", default="cpu", help="unused: this script runs no model")
parser.add_argument("--rows", type=int, default=0, help="use only the first rows of each split")
args = parser.parse_args()

# load_dataset returns a dict of splits. Each split is a table in a file that is mapped into memory,
# so that only the rows and columns that you look at are read.
raw_datasets = load_dataset(args.dataset)
if args.rows:
    for split, dataset in raw_datasets.items():
        raw_datasets[split] = dataset.select(range(min(args.rows, len(dataset))))
print(raw_datasets)

raw_train_dataset = raw_datasets["train"]
print(
    raw_train_dataset.features
)  # the type of each column; a ClassLabel has the names of the classes
print(raw_train_dataset[0])

# A tokenizer turns a pair of sentences into one sequence of ids. Some models also take
# token_type_ids, which tell to which of the two sentences each token belongs.
tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
row = raw_train_dataset[0]
inputs = tokenizer(row["sentence1"], row["sentence2"])
print(inputs)
print(tokenizer.convert_ids_to_tokens(inputs["input_ids"]))


# Rows are not padded yet: to what length depends on the other rows of the batch.
def tokenize_function(example):
    return tokenizer(example["sentence1"], example["sentence2"], truncation=True)


# map adds the columns that the function returns. With batched=True the function gets 1,000 rows at
# a time, which the tokenizer splits on all cores. The result is cached: running this script again
# reads it from disk.
tokenized_datasets = raw_datasets.map(tokenize_function, batched=True)
print(tokenized_datasets)

# The collator pads the rows of a batch to the length of the longest one.
data_collator = DataCollatorWithPadding(tokenizer=tokenizer)
samples = tokenized_datasets["train"][:8]
samples = {name: values for name, values in samples.items() if name in tokenizer.model_input_names}
print("tokens in each row:", [len(ids) for ids in samples["input_ids"]])
batch = data_collator(samples)
print("one batch:", {name: tuple(tensor.shape) for name, tensor in batch.items()})

# A DataLoader does this for a whole split. Columns of text cannot become tensors, so they are left
# out.
columns = [*tokenizer.model_input_names, "label"]
train_dataloader = DataLoader(
    tokenized_datasets["train"].select_columns(columns), batch_size=8, collate_fn=data_collator
)
lengths = [batch["input_ids"].shape[1] for batch in train_dataloader]
print("tokens in a row of each batch:", lengths[:10])
