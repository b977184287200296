"""DistilBERT (Sanh et al. 2019, arXiv 1910.01108): half of BERT's layers, taught by the whole.

No token types and no pooler, no dropout behind attention, and other names for everything.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from minift.models.attention import dropout
from minift.models.config import EncoderConfig
from minift.models.encoder import EncoderModel, LayerNames
from minift.models.heads import SequenceClassifier


@dataclass
class DistilBertConfig(EncoderConfig):
    """config.json of a DistilBERT."""

    attribute_map: ClassVar[Mapping[str, str]] = {
        "hidden_size": "dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
        "hidden_dropout_prob": "dropout",
        "attention_probs_dropout_prob": "attention_dropout",
        "classifier_dropout": "seq_classif_dropout",
    }

    attention_output_dropout: ClassVar[bool] = False

    model_type: str = "distilbert"
    num_hidden_layers: int = 6
    # Not in its files: it has no types, and its norms are always BERT's.
    type_vocab_size: ClassVar[int] = 0  # type: ignore[misc]
    layer_norm_eps: ClassVar[float] = 1e-12  # type: ignore[misc]
    classifier_dropout: float = 0.2


class DistilBertModel(EncoderModel):
    """Token ids to hidden states."""

    base_model_prefix = "distilbert"
    encoder_name = "transformer"
    layer_names = LayerNames(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        out="attention.out_lin",
        attention_norm="sa_layer_norm",
        up="ffn.lin1",
        down="ffn.lin2",
        norm="output_layer_norm",
    )


class DistilBertForSequenceClassification(SequenceClassifier):
    """A hidden layer with ReLU, dropout, the classes."""

    base_model_prefix = "distilbert"
    head_prefixes = ("pre_classifier.", "classifier.")
    encoder = DistilBertModel

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.pre_classifier = nn.Linear(config.hidden_size, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)

    def classify(self, summary: Tensor) -> Tensor:
        hidden = self.pre_classifier(summary).relu()  # (B, H)
        return self.classifier(dropout(hidden, self.p, self.training))
