"""Look at the attention of a fine-tuned pair classifier with BertViz (Vig 2019, arXiv 1906.05714).

pip install ipython && pip install --no-deps bertviz     # its other requirements are not needed
python examples/04_bertviz.py --checkpoint RUN           # a page, attention.html

In a notebook the last lines are `head_view(outputs.attentions, tokens, second)`.
"""

import argparse
from pathlib import Path

import torch
from bertviz import head_view

from minift import AutoModelForSequenceClassification, AutoTokenizer

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2", help="a run's folder, or a model")
parser.add_argument("--texts", nargs=2, default=["The stock rose.", "Shares went up."])
args = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
model = AutoModelForSequenceClassification.from_pretrained(args.checkpoint, output_attentions=True)

inputs = tokenizer(*args.texts, return_tensors="pt")
with torch.no_grad():
    outputs = model(**inputs)  # outputs.attentions: for each layer (1, N, T, T)
tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
types = inputs.get("token_type_ids")  # the second text begins where the types do, if there are any
second = int((types[0] == 0).sum()) if types is not None else None

page = head_view(outputs.attentions, tokens, second, html_action="return")
Path("attention.html").write_text(page.data, encoding="utf-8")
layers, (_, heads, length, _) = len(outputs.attentions), outputs.attentions[0].shape
print(f"{layers} layers of {heads} heads over {length} tokens: attention.html")
