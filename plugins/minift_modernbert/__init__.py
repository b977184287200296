"""ModernBERT, a family of models from outside the core.

It is here to be useful, and to show what a family of one's own takes: a configuration, an encoder
and a classifier (`model.py`), and this hook. The hook's function is called when such a model is
loaded; until then nothing heavy is imported.
"""

from typing import Any

from minift import hookimpl


def family() -> Any:
    from minift.models.auto import Family
    from minift_modernbert import model

    return Family(
        model.ModernBertConfig, model.ModernBertModel, model.ModernBertForSequenceClassification
    )


@hookimpl
def minift_register_model_families():
    return {"modernbert": family}
