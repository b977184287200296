"""BERT's relatives: RoBERTa, ELECTRA and DistilBERT, on the encoder that `minift.models` offers.

Each family's function is called when such a model is loaded; until then nothing heavy is imported.
"""

from typing import Any

from minift import hookimpl


def distilbert_family() -> Any:
    from minift.models.auto import Family
    from minift_families import distilbert

    return Family(
        distilbert.DistilBertConfig,
        distilbert.DistilBertModel,
        distilbert.DistilBertForSequenceClassification,
    )


def electra_family() -> Any:
    from minift.models.auto import Family
    from minift_families import electra

    return Family(
        electra.ElectraConfig, electra.ElectraModel, electra.ElectraForSequenceClassification
    )


def roberta_family() -> Any:
    from minift.models.auto import Family
    from minift_families import roberta

    return Family(
        roberta.RobertaConfig, roberta.RobertaModel, roberta.RobertaForSequenceClassification
    )


@hookimpl
def minift_register_model_families():
    return {"distilbert": distilbert_family, "electra": electra_family, "roberta": roberta_family}
