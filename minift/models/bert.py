"""BERT, and MiniLM, which is a small BERT: the encoder as it is, a pooler, a classifier."""

from torch import Tensor, nn

from minift.models.attention import dropout
from minift.models.config import EncoderConfig
from minift.models.encoder import EncoderModel
from minift.models.heads import SequenceClassifier


class BertModel(EncoderModel):
    """Token ids to hidden states, and the pooler's transformed state of the first position."""

    base_model_prefix = "bert"
    head_prefixes = ("pooler.",)
    has_pooler = True


class BertForSequenceClassification(SequenceClassifier):
    """Pooler, dropout, classifier."""

    base_model_prefix = "bert"
    head_prefixes = ("classifier.", "bert.pooler.")
    encoder = BertModel

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def classify(self, summary: Tensor) -> Tensor:
        pooled = self.bert.pool(summary)  # type: ignore[operator, union-attr]
        return self.classifier(dropout(pooled, self.p, self.training))
