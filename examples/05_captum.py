"""Which tokens pulled a pair classifier where? Integrated gradients with captum (captum.ai).

pip install captum
python examples/05_captum.py --checkpoint RUN            # a run's folder, or any classifier

Sundararajan et al. 2017 (arXiv 1703.01365): walk from a text without content (padding) to the real
one, and add up the gradients of a class's logit on the way. The shares of all tokens add up to the
difference between the two logits. `minift inspect` computes the same without captum.
"""

import argparse

import torch
from captum.attr import LayerIntegratedGradients

from minift import AutoModelForSequenceClassification, AutoTokenizer

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--checkpoint", default="all-MiniLM-L6-v2", help="a run's folder, or a model")
parser.add_argument("--texts", nargs=2, default=["The stock rose.", "Shares went up."])
args = parser.parse_args()

tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)
model = AutoModelForSequenceClassification.from_pretrained(args.checkpoint)

inputs = tokenizer(*args.texts, return_tensors="pt")
ids = inputs.pop("input_ids")  # (1, T)
special = torch.tensor([tokenizer.cls_token_id, tokenizer.sep_token_id])
baseline = torch.where(torch.isin(ids, special), ids, tokenizer.pad_token_id)
encoder = getattr(model, model.base_model_prefix)  # model.bert, for a BERT


def logits(ids, *others):
    return model(ids, **dict(zip(inputs, others, strict=True))).logits


target = int(logits(ids, *inputs.values()).argmax())
attribute = LayerIntegratedGradients(logits, encoder.embeddings).attribute
pulls, error = attribute(
    ids, baseline, target=target, additional_forward_args=tuple(inputs.values()),
    n_steps=64, return_convergence_delta=True,
)  # fmt: skip
print(f"towards {model.config.id2label[target]}, with an error of {abs(float(error)):.4f}:")
for token, pull in zip(tokenizer.convert_ids_to_tokens(ids[0]), pulls[0].sum(-1), strict=True):
    print(f"{float(pull):+8.4f}  {token}")
