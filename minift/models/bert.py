"""BERT, and MiniLM, which is a small BERT: the encoder as it is, a pooler, a classifier."""

import torch
from torch import Tensor, nn

from minift.models.config import EncoderConfig
from minift.models.encoder import EncoderModel, SequenceClassifier, dropout, place


class BertModel(EncoderModel):
    """Token ids to hidden states."""

    base_prefix = "bert."
    may_be_new = ("pooler.",)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        place(self, "pooler.dense", nn.Linear(config.hidden_size, config.hidden_size))

    def pool(self, first: Tensor) -> Tensor:
        """The state of [CLS] through a layer that was trained on whether two sentences follow."""
        return torch.tanh(self.get_submodule("pooler.dense")(first))  # (B, H)


class BertForSequenceClassification(SequenceClassifier):
    """Pooler, dropout, classifier."""

    base_prefix = "bert."
    may_be_new = ("classifier.", "bert.pooler.")
    encoder = BertModel

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def classify(self, first: Tensor) -> Tensor:
        pooled = self.bert.pool(first)  # type: ignore[operator, union-attr]
        return self.classifier(dropout(pooled, self.p, self.training))
