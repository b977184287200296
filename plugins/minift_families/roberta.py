"""RoBERTa (Liu et al. 2019, arXiv 1907.11692): BERT's encoder, trained better.

It knows no pairs, only one type of token; its positions count from behind the padding token's
number; its classifier has a hidden layer of its own instead of a pooler.
"""

from dataclasses import dataclass

from torch import Tensor

from minift.models.config import EncoderConfig
from minift.models.encoder import EncoderModel
from minift.models.heads import SequenceClassifier
from minift_families.head import ClassificationHead


@dataclass
class RobertaConfig(EncoderConfig):
    """config.json of a RoBERTa; the library that trained it put padding at 1."""

    model_type: str = "roberta"
    vocab_size: int = 50265
    pad_token_id: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_seq_length < 1:
            self.refuse("pad_token_id", self.pad_token_id, "less than max_position_embeddings - 1")

    @property
    def max_seq_length(self) -> int:
        return self.max_position_embeddings - self.pad_token_id - 1


class RobertaEncoder(EncoderModel):
    """Token ids to hidden states, without the pooler that classifiers do not read."""

    base_model_prefix = "roberta"
    config: RobertaConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        # The table of positions has a row for padding, which is not trained.
        self.embeddings.position_embeddings.padding_idx = config.pad_token_id

    def positions(self, input_ids: Tensor) -> Tensor:
        """A row's tokens are numbered from pad + 1; padding has the number pad."""
        pad = self.config.pad_token_id
        real = (input_ids != pad).long()  # (B, T)
        return real.cumsum(1) * real + pad


class RobertaModel(RobertaEncoder):
    """The same with the pooler, as AutoModel gives it."""

    head_prefixes = ("pooler.",)
    has_pooler = True


class RobertaForSequenceClassification(SequenceClassifier):
    """A hidden layer with tanh, then the classes."""

    base_model_prefix = "roberta"
    head_prefixes = ("classifier.",)
    encoder = RobertaEncoder

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.classifier = ClassificationHead(config, "tanh", self.p)

    def classify(self, summary: Tensor) -> Tensor:
        return self.classifier(summary)
