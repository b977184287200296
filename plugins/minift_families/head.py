"""The classifier that RoBERTa and ELECTRA share: a hidden layer of its own instead of a pooler."""

from torch import Tensor, nn

from minift.models.attention import dropout
from minift.models.config import ACTIVATIONS, EncoderConfig


class ClassificationHead(nn.Module):
    """Dropout, dense, activation, dropout, logits."""

    def __init__(self, config: EncoderConfig, activation: str, p: float) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.num_labels)
        self.activation, self.p = ACTIVATIONS[activation], p

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.dense(dropout(x, self.p, self.training)))
        return self.out_proj(dropout(x, self.p, self.training))
