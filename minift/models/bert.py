"""BERT, and MiniLM, which is a small BERT: the encoder as it is, a pooler, a classifier."""

import torch
from torch import Tensor, nn

from minift.models.encoder import (
    Dense,
    Embeddings,
    Encoder,
    EncoderConfig,
    EncoderOutput,
    PretrainedModel,
    Rows,
    SequenceClassifierOutput,
    check_inputs,
    classifier_output,
    dropout,
)


class BertModel(PretrainedModel):
    """Token ids to hidden states."""

    base_prefix = "bert."
    head = ("pooler.",)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.embeddings = Embeddings(config)
        self.encoder = Encoder(config)
        self.pooler = Dense(config.hidden_size, config.hidden_size)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> EncoderOutput:
        x, rows = self.encode(input_ids, attention_mask, token_type_ids, first_only=False)
        return EncoderOutput(rows.spread(x), self.pool(x[rows.first]))

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        token_type_ids: Tensor | None,
        first_only: bool,
    ) -> tuple[Tensor, Rows]:
        """(P, H) hidden states of the real tokens, or (B, H) of each row's first position."""
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        check_inputs(self.config, input_ids, attention_mask, token_type_ids)
        rows = Rows.of(attention_mask)
        x = self.embeddings(input_ids, token_type_ids, rows)  # (P, H)
        return self.encoder(x, rows, first_only), rows

    def pool(self, first: Tensor) -> Tensor:
        """(B, H), the first position's hidden state, to (B, H), what a classifier reads."""
        return torch.tanh(self.pooler(first))


class BertForSequenceClassification(PretrainedModel):
    """A class, or a number, for each row."""

    base_prefix = "bert."
    head = ("classifier.", "bert.pooler.")

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.bert = BertModel(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        given = config.classifier_dropout
        self.p = config.hidden_dropout_prob if given is None else given

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        first, _ = self.bert.encode(input_ids, attention_mask, token_type_ids, first_only=True)
        pooled = dropout(self.bert.pool(first), self.p, self.training)  # (B, H)
        return classifier_output(self.config, self.classifier(pooled), labels)
