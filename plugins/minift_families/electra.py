"""ELECTRA (Clark et al. 2020, arXiv 2003.10555): BERT's encoder, trained to spot replaced tokens.

Small models have embeddings narrower than the hidden size, and a layer between the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from minift.models.config import EncoderConfig
from minift.models.encoder import EncoderModel
from minift.models.heads import SequenceClassifier
from minift.settings import AT_LEAST_1, Range
from minift_families.head import ClassificationHead


@dataclass
class ElectraConfig(EncoderConfig):
    """config.json of an ELECTRA; the defaults are those of the small model."""

    ranges: ClassVar[Mapping[str, Range]] = {**EncoderConfig.ranges, "embedding_size": AT_LEAST_1}

    model_type: str = "electra"
    embedding_size: int = 128
    hidden_size: int = 256
    num_attention_heads: int = 4
    intermediate_size: int = 1024

    @property
    def embedding_width(self) -> int:
        return self.embedding_size


class ElectraModel(EncoderModel):
    """Token ids to hidden states."""

    base_model_prefix = "electra"


class ElectraForSequenceClassification(SequenceClassifier):
    """A hidden layer with GELU, then the classes."""

    base_model_prefix = "electra"
    head_prefixes = ("classifier.",)
    encoder = ElectraModel

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.classifier = ClassificationHead(config, "gelu", self.p)

    def classify(self, summary: Tensor) -> Tensor:
        return self.classifier(summary)
